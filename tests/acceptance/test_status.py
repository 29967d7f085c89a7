"""What a pipe says of itself: to ``penstock status``, while it runs and afterwards, and to Prometheus."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from penstock.lsn import Lsn

if TYPE_CHECKING:
    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")
UNFIT = "unfit price: nan"


def status(case: Case, expect: int = 0) -> dict[str, Any]:
    done = case.penstock("status", str(case.file), "--json")
    assert done.returncode == expect, done.stderr
    known: dict[str, Any] = json.loads(done.stdout)
    return known


def table(known: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in known["tables"] if each["full_name"] == name)
    return found


def test_status_and_metrics(embedded: Case) -> None:
    embedded.database.execute(
        "create table t (id int primary key, price numeric(10, 2))",
        "insert into t values (1, 1.5), (2, 'NaN')",
        'create table "odd: ""name" (id int primary key)',
        "create table other (id int primary key, v int)",
    )
    embedded.define(settings='flush_interval = "50ms"')
    unknown = embedded.penstock("status", str(embedded.file))
    assert (unknown.returncode, "has run here" in unknown.stderr) == (2, True)
    embedded.once()
    stopped = status(embedded)
    assert (stopped["state"], table(stopped, "public.t")["counters"]) == ("stopped", {UNFIT: 1})
    assert table(stopped, "public.t")["state"] == "streaming"

    with embedded.started([*embedded.command("run", str(embedded.file)), "--metrics", "0"]) as process:
        embedded.database.execute("insert into t values (3, 'NaN')", "alter table other alter v type text")
        embedded.database.execute("insert into other values (1, 'text')")
        embedded.wait_until(
            lambda: table(embedded.status(), "public.t")["counters"] == {UNFIT: 2}, "the second one is counted"
        )
        embedded.wait_until(lambda: embedded.status()["state"] == "running", "it runs")
        embedded.wait_until(lambda: table(embedded.status(), "public.other")["state"] == "failed", "set aside")
        shown = embedded.penstock("status", "shop")
        assert shown.returncode == 1
        assert "public.other" in shown.stdout
        assert "price: nan (2)" in re.sub(r"\s+", " ", shown.stdout)
        found = re.search(r"at=(http://127\.0\.0\.1:\d+/metrics)", embedded.log())
        assert found
        with urllib.request.urlopen(found[1]) as answer:
            lines = answer.read().decode().splitlines()
        unfit = 'penstock_unfit_values_total{column="price",pipe="shop",reason="nan",table="public.t"} 2.0'
        assert unfit in lines
        assert 'penstock_pipe_state{pipe="shop",state="running"} 1.0' in lines
        assert 'penstock_table_state{pipe="shop",state="failed",table="public.other"} 1.0' in lines
        assert 'penstock_table_state{pipe="shop",state="streaming",table="public.odd: \\"name"} 1.0' in lines
        assert 'penstock_changes_total{pipe="shop",table="public.t"} 1.0' in lines
        ((end,),) = embedded.database.fetch("select pg_current_wal_insert_lsn()::text")
        embedded.wait_until(
            lambda: Lsn.parse(embedded.status()["confirmed"]) >= Lsn.parse(end), "all that is saved", 20
        )
        process.kill()
        process.wait()
    killed = status(embedded, expect=1)
    assert killed["state"] == "stopped"
    assert table(killed, "public.t")["counters"] == {UNFIT: 2}
    assert "another type" in table(killed, "public.other")["last_error"]
    embedded.penstock("run", str(embedded.file), "--once")
    assert embedded.query("select count() from t_current where price is null") == [["2"]]


@pytest.mark.parametrize(("address", "why"), [("nowhere", "is no address"), ("99999", "cannot be served")])
def test_an_address_for_metrics_that_cannot_be_used(embedded: Case, address: str, why: str) -> None:
    embedded.define()
    done = embedded.penstock("run", str(embedded.file), "--metrics", address)
    assert done.returncode == 2
    assert why in done.stderr
