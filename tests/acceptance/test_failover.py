"""A standby is promoted, and the endpoint leads there: the pipe follows, and no row is lost, doubled, or from a time that never was."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from tests.fix_postgres import until
from tests.load import TABLES, load, make_tables

if TYPE_CHECKING:
    from tests.fix_pipe import Case
    from tests.fix_standby import Cluster

QUICK = 'flush_interval = "50ms"\ncopy_part_rows = 2000\nmax_batch_rows = 500'


def wait_until_streaming(case: Case) -> None:
    case.wait_until(lambda: case.log().count("table streaming") == 2, "both tables stream")


def assert_the_end_arrives(case: Case, cluster: Cluster, *tables: str) -> None:
    """What is committed last arrives, and then both ends are equal."""
    case.database = cluster.database
    case.database.execute("insert into a values (1000000, 0, 'last') on conflict (id) do update set v = a.v + 1")
    case.wait_for("select count() from a_current where id = 1000000", 1)
    until(lambda: not any(case.differences(each) for each in tables or TABLES), 10)
    case.assert_equal(*(tables or TABLES))
    assert "Traceback" not in case.log()


@pytest.mark.pg("== 17")
def test_a_promotion_under_load_loses_nothing(followed: Case, cluster: Cluster) -> None:
    """The primary dies without a word; the slot was kept by the standby, and what the pipe had was there before."""
    make_tables(cluster.database)
    followed.define(settings=QUICK)
    with followed.running():
        wait_until_streaming(followed)
        cluster.synchronize()
        with load(cluster) as work:
            work.wait_for_commits(200)
            cluster.promote(lost=True)
            work.wait_for_commits(100)
        assert_the_end_arrives(followed, cluster)
    said = followed.log()
    assert re.search(r"failover .*timeline=.?1 to 2", said)
    assert re.search(r"source is back .*away=", said)
    assert "set aside" not in said
    followed.once()
    followed.assert_equal(*TABLES)
