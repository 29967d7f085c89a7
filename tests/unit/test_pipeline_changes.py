"""What the following of definitions keeps of a table's copy."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.plans import plan_of

from penstock.lsn import Lsn
from penstock.pipeline import retry
from penstock.pipeline.changes import Changes
from penstock.pipeline.checkpoint import TableRecord
from penstock.pipeline.epochs import Epochs
from penstock.pipeline.gate import Gate
from penstock.pipeline.lifecycle import State
from penstock.pipeline.lookout import Sight

if TYPE_CHECKING:
    from penstock.pipeline.lane import Lane

EPOCHS = Epochs()


@pytest.mark.parametrize(
    ("base", "saved", "expected"),
    [
        pytest.param(100, 300, 300, id="later"),
        pytest.param(400, 300, 400, id="never back"),
        pytest.param(0, 300, 0, id="a first copy"),
    ],
)
def test_rows_of_a_new_partition_are_newer_than_all_that_came_without_it(base: int, saved: int, expected: int) -> None:
    """Whatever the new connection has said so far."""
    means: Any = SimpleNamespace(pipe=SimpleNamespace(source=SimpleNamespace(publication="")), epochs=EPOCHS)
    naming: Any = None
    lane: Lane | Any = SimpleNamespace(record=TableRecord(1, "public.t", "t", "", base=EPOCHS.version(base)))
    Changes(means, {}, naming).rebase(lane, Lsn(saved))
    assert lane.record.base == EPOCHS.version(expected)


@pytest.mark.parametrize("aside", [False, True], ids=["in its place", "moved out of the way"])
def test_a_table_that_got_its_old_name_back_waits_for_no_other(aside: bool) -> None:
    plan = plan_of("id int4")
    target = plan.target
    lane: Lane | Any = SimpleNamespace(
        record=TableRecord(plan.table.oid, plan.table.full_name, target, "", state=State.STREAMING),
        ahead=plan,
        target=f"{target}_moving" if aside else target,
        wants="other",
        stuck=False,
        skipping=False,
        looked=None,
        horizon=0,
        report=None,
    )
    means: Any = SimpleNamespace(
        pipe=SimpleNamespace(
            source=SimpleNamespace(publication=""), tables=SimpleNamespace(target_of=lambda _schema, _name: target)
        ),
        epochs=EPOCHS,
        stop=retry.Stop(),
    )

    class Names:
        async def new_target(self, lane: Lane, wanted: str) -> str:
            lane.wants = ""
            return wanted

    naming: Any = Names()
    changes = Changes(means, {plan.table.oid: lane}, naming)
    changes.news(Sight({plan.table.oid: plan.table}, {}, (), (), Lsn(7)))
    assert not changes.idle
    named, found = asyncio.run(changes._named(lane, plan.table))
    assert (named, found, lane.target, lane.wants) == (plan.table, target, target, "")


def test_a_table_is_settled_once() -> None:
    """Whoever asks for it had to wait for a position first: somebody else may have done it meanwhile, and rows are copied by then."""
    looked: list[int] = []

    async def look(lane: Lane) -> None:
        looked.append(lane.ahead.table.oid)
        changes.settle(lane, Lsn(8))  # from another task: that which is under way is done when the stream is there

    means: Any = SimpleNamespace(pipe=SimpleNamespace(source=SimpleNamespace(publication="")), look=look)
    plan = plan_of("id int4")
    lane: Lane | Any = SimpleNamespace(
        ahead=plan,
        skipping=True,
        stepping=False,
        gate=Gate(lambda: 9, lambda: None, shut=False),
        reached=lambda _saved: False,
        submit=lambda _step: None,
    )
    naming: Any = None
    stream: Any = SimpleNamespace(position=Lsn(9), take=lambda _lane: None)
    changes = Changes(means, {plan.table.oid: lane}, naming)
    changes.attach(stream)
    changes.settle(lane, Lsn(7))
    asyncio.run(changes.between(Lsn(9)))
    lane.skipping = False
    asyncio.run(changes.between(Lsn(9)))
    assert looked == [plan.table.oid]
