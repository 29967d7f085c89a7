"""Timelines and epochs: where two histories part, and what is of which epoch. Without a server."""

from __future__ import annotations

import pytest

from penstock.errors import SlotError
from penstock.lsn import Lsn
from penstock.pipeline import failover
from penstock.pipeline.checkpoint import PipeRecord
from penstock.pipeline.epochs import Epochs
from penstock.postgres.slot import SlotState, SystemIdentity
from penstock.postgres.timeline import FOR_EVER, Timeline, parsed

FIRST = Timeline(1)
SECOND = Timeline(2, ((1, Lsn(0x100)),))
OTHER_SECOND = Timeline(2, ((1, Lsn(0x80)),))
THIRD = Timeline(3, ((1, Lsn(0x100)), (2, Lsn(0x200))))
BESIDE_THIRD = Timeline(4, ((1, Lsn(0x100)), (2, Lsn(0x300))))
FROM_FIRST = Timeline(3, ((1, Lsn(0x90)),))


@pytest.mark.parametrize(
    ("ours", "theirs", "position"),
    [
        (FIRST, FIRST, FOR_EVER),
        (THIRD, THIRD, FOR_EVER),
        (FIRST, SECOND, 0x100),
        (FIRST, THIRD, 0x100),
        (SECOND, THIRD, 0x200),
        (SECOND, OTHER_SECOND, 0x80),  # two standbys were promoted, and both began timeline 2
        (SECOND, FROM_FIRST, 0x90),
        (THIRD, BESIDE_THIRD, 0x200),
        (THIRD, FIRST, 0x100),
        (Timeline(5), THIRD, 0),  # nothing in common
    ],
)
def test_where_two_timelines_part(ours: Timeline, theirs: Timeline, position: int) -> None:
    assert ours.parts_from(theirs) == theirs.parts_from(ours) == position


def test_an_old_primary_is_known_as_one() -> None:
    assert FIRST.is_behind(SECOND)
    assert SECOND.is_behind(THIRD)
    assert not THIRD.is_behind(SECOND)
    assert not FROM_FIRST.is_behind(SECOND)


def test_a_history_file_is_read() -> None:
    text = b"1\t0/3000158\tno recovery target specified\n\n# a comment\n2\t1A/0\tbefore 2026-01-01 \xff\n"
    assert parsed(text) == ((1, Lsn(0x3000158)), (2, Lsn(0x1A << 32)))


@pytest.mark.parametrize("timeline", [FIRST, SECOND, THIRD])
def test_a_timeline_is_kept_as_text(timeline: Timeline) -> None:
    assert Timeline.parse(str(timeline)) == timeline


def test_versions_rise_although_positions_start_over() -> None:
    before = Epochs()
    after = before.risen(Lsn(0x100))
    assert after.version(0xFF) == before.version(0xFF)  # read again, it is the same row
    assert after.version(0x100) > before.version(0xFFFF)
    again = after.risen(Lsn(0x80))
    assert again.version(0x7F) == before.version(0x7F)
    assert again.version(0x80) > after.version(0xFFFF)
    assert Epochs.parse(str(again)) == again
    assert Epochs.parse(str(before)) == before


def test_there_are_255_epochs_after_the_first() -> None:
    epochs = Epochs()
    for number in range(255):
        epochs = epochs.risen(Lsn(number))
    with pytest.raises(SlotError, match="255 times"):
        epochs.risen(Lsn(1))


@pytest.mark.parametrize(("in_recovery", "said"), [(False, "it was restored"), (True, "")])
def test_a_standby_that_replays_again_was_not_restored(said: str, *, in_recovery: bool) -> None:
    """After a restart it begins at its last restart point; the stream sends what it has replayed by then."""
    slot = SlotState("s", "pgoutput", "shop", None, Lsn(40), Lsn(40), 0, "reserved", "", False, None)
    ground = failover.Ground(SystemIdentity("1", 1, in_recovery, "shop", ""), Timeline(1), Lsn(50), slot)
    record = PipeRecord("shop", "s", "p", "1", Timeline(1), Lsn(60))
    assert said in (found := failover._broken(record, record.position, ground))
    assert bool(found) == bool(said)
