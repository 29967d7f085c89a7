"""What the following of definitions keeps of a table's copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from penstock.lsn import Lsn
from penstock.pipeline.changes import Changes
from penstock.pipeline.checkpoint import TableRecord
from penstock.pipeline.epochs import Epochs

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
