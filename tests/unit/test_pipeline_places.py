"""Tombstones at the places that rows leave, where ``order_by`` has columns that PostgreSQL does not tell of an old row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests import fix_frames as frame
from tests.feed import OID, Feed
from tests.fix_frames import LEFT_OUT
from tests.native_block import rows_of
from tests.plans import plan_of

from penstock import spill
from penstock.batch import Value, version_of
from penstock.clickhouse.lookup import Stored
from penstock.pipeline import places

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    import pytest

    from penstock.batch import Batch
    from penstock.plan import Plan

PLAN = plan_of("id int4, note text, n int4", options={"order_by": ["note"]})
Identity = tuple[bytes, ...]


class Destination:
    """The places of keys that are alive there; each is asked for once."""

    def __init__(self, **alive: list[tuple[int, str | None]]) -> None:
        self.alive = {
            (key.lstrip("_").encode(),): [Stored(version, False, {1: value(note)}) for version, note in rows]
            for key, rows in alive.items()
        }
        self.asked: list[Identity] = []

    def newest(self, *_: object) -> dict[Identity, Stored]:
        raise AssertionError("nothing is to be completed")

    def places(self, _plan: Plan, identities: Sequence[Identity]) -> dict[Identity, list[Stored]]:
        self.asked += identities
        return {each: self.alive[each] for each in identities if each in self.alive}


def value(note: str | None) -> Value:
    """As ClickHouse sends it: something may stand beside NULL."""
    return Value(null=True, data=b"\x03odd") if note is None else Value(null=False, data=text(note))


def text(note: str) -> bytes:
    return bytes([len(note)]) + note.encode()


def at(lsn: int, ordinal: int = 1) -> int:
    return version_of(0, lsn, ordinal)


def told(batch: Batch) -> list[tuple[Any, ...]]:
    """Key, place, commit LSN and flag of each row."""
    return [
        (row["id"], row["note"] and row["note"].decode(), row["_version"] >> 64, row["_is_deleted"])
        for row in rows_of(batch)
    ]


def settled(decoder: ModuleType, destination: Destination, *changes: bytes) -> list[tuple[Any, ...]]:
    feed = Feed(decoder, PLAN)
    for change in changes:
        feed.transaction(change)
    batch = feed.take()
    places.settle(batch, destination)
    assert batch.holes == ()
    return told(batch)


def test_a_row_that_moves_leaves_a_tombstone(decoder: ModuleType) -> None:
    destination = Destination(_1=[(0, "here")])
    changes = frame.update(OID, ["1", "there", "5"]), frame.update(OID, ["1", "there", "6"])
    assert settled(decoder, destination, *changes) == [
        (1, "there", 0x100, 0),
        (1, "there", 0x200, 0),
        (1, "here", 0x100, 1),
    ]
    assert destination.asked == [(b"1",)]


def test_a_deleted_row_is_deleted_where_it_was(decoder: ModuleType) -> None:
    destination = Destination(_1=[(at(5), "here")], _2=[(0, None)])
    changes = [frame.delete(OID, key=[key, None, None]) for key in "123"]
    assert settled(decoder, destination, *changes) == [
        (1, "here", 0x100, 1),
        (2, None, 0x200, 1),
        (3, None, 0x300, 1),  # of a row that is nowhere
    ]


def test_rows_of_one_batch_are_known_from_one_another(decoder: ModuleType) -> None:
    changes = (
        frame.insert(OID, ["1", "a", None]),
        frame.update(OID, ["1", "b", None]),
        frame.update(OID, ["2", "b", None], key=["1", None, None]),  # another key, at the same place
        frame.delete(OID, key=["2", None, None]),
        frame.insert(OID, ["2", "c", None]),
    )
    assert settled(decoder, Destination(), *changes) == [
        (1, "a", 0x100, 0),
        (1, "b", 0x200, 0),
        (1, "b", 0x300, 1),
        (2, "b", 0x300, 0),
        (2, "b", 0x400, 1),
        (2, "c", 0x500, 0),
        (1, "a", 0x200, 1),
    ]


def test_null_is_a_place_whatever_stands_beside_it(decoder: ModuleType) -> None:
    assert settled(decoder, Destination(_1=[(0, None)]), frame.update(OID, ["1", None, "5"])) == [(1, None, 0x100, 0)]


def test_a_replay_finds_what_a_crash_left_and_touches_nothing_newer(decoder: ModuleType) -> None:
    destination = Destination(_1=[(0, "left over"), (at(0x100), "first"), (at(0x200), "second"), (at(0x300), "newer")])
    changes = frame.update(OID, ["1", "first", None]), frame.update(OID, ["1", "second", None])
    assert settled(decoder, destination, *changes) == [
        (1, "first", 0x100, 0),
        (1, "second", 0x200, 0),
        (1, "left over", 0x100, 1),
        (1, "first", 0x200, 1),
    ]


def test_values_that_wait_in_a_file_are_places_too(
    decoder: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 0)
    feed = Feed(decoder, PLAN)
    feed.transaction(frame.update(OID, ["1", LEFT_OUT, "5"]))
    feed.transaction(frame.update(OID, ["2", "moved", "5"]))
    batch, kept = feed.take(), spill.Spill(tmp_path)
    batch.complete({(0, 1): Value(null=False, data=kept.keep(text("stays")))})
    destination = Destination(_1=[(0, "stays")])
    destination.alive[(b"2",)] = [Stored(0, False, {1: Value(null=False, data=kept.keep(text("large")))})]
    places.settle(batch, destination)
    assert told(batch) == [(1, "stays", 0x100, 0), (2, "moved", 0x200, 0), (2, "large", 0x200, 1)]
