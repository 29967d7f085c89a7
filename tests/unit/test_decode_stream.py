"""The stream's messages one by one: what comes out, what is counted, which positions are reached, and what is refused."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from tests import fix_frames as frame
from tests.feed import OID, Feed
from tests.native_block import rows_of
from tests.plans import TABLE_OID, plan_of

from penstock.batch import Batch, Rejected, Relation, RelationColumn, Truncate, version_of
from penstock.errors import FrameError

if TYPE_CHECKING:
    from types import ModuleType

    from penstock.plan import Plan

TWO = "id int4, note text"


@pytest.fixture
def plan() -> Plan:
    return plan_of(TWO)


def test_relation_is_handed_out_as_it_is(decoder: ModuleType) -> None:
    stream = decoder.StreamDecoder(10, 1000, ())
    columns = [("id", 23, -1, True), ("Preis €", 1700, 655_366, False)]
    stream.receive(frame.relation(5, columns, schema="büro", name="täglich", identity="f"))
    assert stream.next_item() == Relation(
        5, "büro", "täglich", "f", (RelationColumn("id", 23, -1, True), RelationColumn("Preis €", 1700, 655_366, False))
    )
    assert stream.next_item() is None


def test_messages_without_rows_never_come_out(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    items = feed.transaction(
        frame.origin("elsewhere", lsn=7),
        frame.type_(70_000, "mood"),
        frame.message("penstock", b"beat \0 beat"),
        frame.message("", b"", transactional=False),
    )
    assert items == []
    assert feed.send(frame.message("penstock", b"between transactions", transactional=False)) == []
    assert (feed.stream.changes, feed.stream.transactions, feed.stream.pending) == (0, 1, {})
    assert feed.stream.take(TABLE_OID) is None


def test_a_row_carries_its_place_in_the_stream(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan, starts=(0, 0, 0))
    other = feed.relation(77)
    first = feed.transaction(
        other, frame.insert(OID, ["1", "a"]), frame.update(OID, ["1", "b"]), frame.insert(OID, ["2", None])
    )
    assert [type(item) for item in first] == [Relation]
    feed.transaction(frame.delete(OID, key=["2", None]))
    assert feed.rows() == [
        {"id": 1, "note": b"a", "_version": version_of(3, 0x100, 1), "_is_deleted": 0},
        {"id": 1, "note": b"b", "_version": version_of(3, 0x100, 2), "_is_deleted": 0},
        {"id": 2, "note": None, "_version": version_of(3, 0x100, 3), "_is_deleted": 0},
        {"id": 2, "note": None, "_version": version_of(3, 0x200, 1), "_is_deleted": 1},
    ]
    assert (feed.stream.changes, feed.stream.transactions) == (4, 2)


def test_rows_and_truncates_of_every_relation_count_on(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    feed.send(feed.relation(77))
    feed.stream.unbind(77)
    items = feed.transaction(
        frame.insert(77, ["1", None]),
        frame.truncate([77]),
        frame.message("m", b""),
        frame.update(77, ["1", None]),
        frame.insert(OID, ["1", None]),
        frame.delete(77, key=["1", None]),
        frame.insert(OID, ["2", None]),
    )
    assert items == [Truncate((77,), version_of(0, 0x100, 2), cascade=False, restart_identity=False)]
    assert [row["_version"] for row in feed.rows()] == [version_of(0, 0x100, 4 + 0), version_of(0, 0x100, 6)]
    assert feed.stream.changes == 5


def test_ordinals_are_places_in_the_wal_whatever_else_is_sent(decoder: ModuleType, plan: Plan) -> None:
    # two records of two rows, one record out of its order
    starts = [0x1000, 0x1000, 0x1040, 0x1048, 0x1048, 0x1040, 2**56 - 8]
    rows = [frame.insert(OID, ["1", None], start=start) for start in starts]
    ordinals = [
        0x1000 << 8,
        (0x1000 << 8) + 1,
        0x1040 << 8,
        0x1048 << 8,
        (0x1048 << 8) + 1,
        (0x1048 << 8) + 2,
        2**64 - 2048,
    ]
    others = [frame.insert(77, ["1", None], start=start) for start in (0xFF8, 0x1008, 0x1008, 0x1050)]
    for sent in (rows, [others[0], *rows[:2], *others[1:3], *rows[2:6], others[3], rows[6]]):
        feed = Feed(decoder, plan)
        feed.send(feed.relation(77))
        feed.stream.unbind(77)
        feed.transaction(*sent)
        assert [row["_version"] for row in feed.rows()] == [version_of(0, 0x100, each) for each in ordinals]


@pytest.mark.parametrize(("cascade", "restart_identity"), [(False, False), (True, False), (False, True), (True, True)])
def test_truncate(decoder: ModuleType, plan: Plan, *, cascade: bool, restart_identity: bool) -> None:
    feed = Feed(decoder, plan)
    truncate = frame.truncate([OID, 4_000_000_000], cascade=cascade, restart_identity=restart_identity)
    items = feed.transaction(frame.insert(OID, ["1", "a"]), truncate, frame.insert(OID, ["2", "b"]))
    assert items == [Truncate((OID, 4_000_000_000), version_of(0, 0x100, 2), cascade, restart_identity)]


def test_what_is_pending_at_a_truncate_came_before_it(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    stream = feed.stream
    stream.receive(
        frame.begin(0x100) + frame.insert(OID, ["1", "a"]) + frame.truncate([OID]) + frame.insert(OID, ["2", "b"])
    )
    assert isinstance(stream.next_item(), Truncate)
    assert [row["id"] for row in feed.rows()] == [1]
    assert stream.next_item() is None
    assert [row["id"] for row in feed.rows()] == [2]


def test_changes_from_before_a_seam_are_skipped(decoder: ModuleType) -> None:
    plan = plan_of("id int4, note text", options={"shape": "history"})
    feed = Feed(decoder, plan)
    feed.stream.bind(OID, plan, (0, 1), False, version_of(0, 0x200, 0))
    changes = [frame.insert(OID, ["1", "a"]), frame.truncate([OID]), frame.delete(OID, key=["1", None])]
    items = [each for _ in range(2) for each in feed.transaction(*changes)]
    assert [item.version for item in items] == [version_of(0, lsn, 2) for lsn in (0x100, 0x200)]
    assert [row["_version"] for row in feed.rows()] == [version_of(0, 0x200, ordinal) for ordinal in (1, 2, 3)]
    assert (feed.stream.changes, feed.stream.transactions) == (4, 2)


def test_columns_may_be_left_out_and_stand_in_another_order(decoder: ModuleType) -> None:
    plan = plan_of("id int4, note text, price numeric(6,2)", options={"exclude_columns": ["note"]})
    stream = decoder.StreamDecoder(10, 1000, ())
    leaf = [("price", 1700), ("gone", 25), ("id", 23)]
    stream.receive(frame.relation(OID, leaf) + frame.begin(1) + frame.insert(OID, ["1.50", "…", "7"]))
    assert isinstance(stream.next_item(), Relation)
    stream.bind(OID, plan, plan.source_of(("price", "gone", "id")), False)
    assert stream.next_item() is None
    assert stream.pending == {TABLE_OID: (1, 5, 0)}
    [row] = rows_of(stream.take(TABLE_OID))
    assert (row["id"], str(row["price"])) == (7, "1.50")


def test_leaves_share_a_plan(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    feed.send(feed.relation(77))
    feed.transaction(frame.insert(OID, ["1", None]), frame.insert(77, ["2", None]))
    assert list(feed.stream.pending) == [TABLE_OID]
    assert [row["id"] for row in feed.rows()] == [1, 2]


def test_unbound_rows_are_skipped_and_pending_ones_stay(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    feed.transaction(frame.insert(OID, ["1", None]))
    feed.stream.unbind(OID)
    feed.transaction(frame.insert(OID, ["2", None]), frame.insert(OID, ["not a number", None]))
    assert [row["id"] for row in feed.rows()] == [1]


def test_binding_ends_with_a_new_relation_message(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    feed.stream.receive(feed.relation() + frame.begin(1) + frame.insert(OID, ["1", None]))
    assert isinstance(feed.stream.next_item(), Relation)
    assert feed.stream.next_item() is None
    assert feed.stream.take(TABLE_OID) is None


def test_bind_refuses_what_was_not_announced(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    with pytest.raises(ValueError, match="77"):
        feed.stream.bind(77, plan, (0, 1), False)
    with pytest.raises(ValueError, match=str(OID)):
        feed.stream.bind(OID, plan, (0, 1, -1), False)


def test_another_plan_of_the_table_hands_out_the_rows_of_the_one_before(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    feed.transaction(frame.insert(OID, ["1", None]))
    wider = plan_of("id int4, note text, extra int4")
    feed.plan = wider
    items = feed.transaction(feed.relation(), frame.insert(OID, ["2", None, "5"]))
    assert [type(item) for item in items] == [Relation, Batch]
    assert isinstance(items[1], Batch)
    assert items[1].plan is plan
    assert [row["id"] for row in rows_of(items[1])] == [1]
    assert [row["extra"] for row in feed.rows()] == [5]


# Positions


def test_positions(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    stream = feed.stream
    assert (stream.position, stream.received, stream.reply_requested) == (0, 0, False)
    feed.send(frame.keepalive(0x90))
    assert (stream.position, stream.received) == (0x90, 0x90)
    feed.send(frame.begin(0x100), frame.insert(OID, ["1", None]), frame.keepalive(0x100, reply=True))
    assert (stream.position, stream.received) == (0x90, 0x100)  # the transaction is not over
    assert (stream.reply_requested, stream.reply_requested) == (True, False)
    feed.send(frame.commit(0x100, 0x120))
    assert (stream.position, stream.received) == (0x120, 0x120)
    feed.send(frame.keepalive(0x110))
    assert (stream.position, stream.received) == (0x120, 0x120)  # never back
    feed.send(frame.keepalive(2**64 - 1))
    assert (stream.position, stream.received) == (2**64 - 1, 2**64 - 1)


def test_the_place_of_a_message(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan, starts=(0, 0, 0))
    assert feed.stream.place == (0, 0)
    feed.send(frame.begin(0x100, xid=77), feed.relation())
    assert feed.stream.place == (version_of(3, 0x100, 0), 77)
    feed.send(
        frame.insert(OID, ["1", None]), frame.insert(OID, ["2", None]), feed.relation(), frame.commit(0x100, 0x120)
    )
    assert feed.stream.place == (version_of(3, 0x100, 2), 77)
    feed.send(frame.begin(0x200, xid=78))
    assert feed.stream.place == (version_of(3, 0x200, 0), 78)


def test_floor_is_what_was_reached_before_the_first_row(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan)
    feed.transaction()
    feed.transaction(frame.insert(OID, ["1", None]), committed_at=1_700_000_000_000_001)
    feed.transaction(frame.insert(OID, ["2", "four"]), committed_at=1_700_000_000_000_002)
    assert feed.stream.committed_at == 1_700_000_000_000_002
    assert feed.stream.pending == {TABLE_OID: (2, 6, 0x110)}
    batch = feed.take()
    assert (batch.rows, batch.floor, batch.committed_at, batch.text_bytes) == (2, 0x110, 1_700_000_000_000_001, 6)
    feed.transaction(frame.insert(OID, ["3", None]))
    assert feed.take().floor == 0x310


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_frames_come_in_any_buffer(decoder: ModuleType, plan: Plan, buffer: type) -> None:
    """What was received may be written over once it is used up."""
    feed = Feed(decoder, plan)
    frames = bytearray(frame.begin(1) + frame.insert(OID, ["1", "a"]))
    feed.stream.receive(buffer(frames))
    assert feed.stream.next_item() is None
    frames[:] = bytes(len(frames))
    assert [row["note"] for row in feed.rows()] == [b"a"]


# Limits


def test_a_batch_is_handed_out_when_it_is_full(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan, max_rows=2)
    items = feed.transaction(*(frame.insert(OID, [str(number), None]) for number in range(5)))
    assert [[row["id"] for row in rows_of(item)] for item in items if isinstance(item, Batch)] == [[0, 1], [2, 3]]
    assert len(items) == 2
    assert [row["id"] for row in feed.rows()] == [4]


def test_a_batch_is_full_by_bytes_of_text(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan, max_bytes=10)
    assert feed.transaction(frame.insert(OID, ["1", "a" * 8])) == []
    [batch] = feed.transaction(frame.insert(OID, ["2", None]))
    assert isinstance(batch, Batch)
    assert (batch.rows, batch.text_bytes) == (2, 10)
    assert feed.stream.pending == {}


def test_a_tombstone_and_its_row_stay_together(decoder: ModuleType, plan: Plan) -> None:
    feed = Feed(decoder, plan, max_rows=2)
    [batch] = feed.transaction(frame.insert(OID, ["1", "a"]), frame.update(OID, ["2", "a"], key=["1", None]))
    assert isinstance(batch, Batch)
    assert [(row["id"], row["_is_deleted"]) for row in rows_of(batch)] == [(1, 0), (1, 1), (2, 0)]


# Rejected rows


def test_a_rejected_row_unbinds_its_plan_and_leaves_what_is_pending(decoder: ModuleType) -> None:
    plan = plan_of("id date, note text")
    feed = Feed(decoder, plan)
    feed.send(feed.relation(77))
    items = feed.transaction(
        frame.insert(OID, ["2024-01-01", "a"]),
        frame.insert(OID, ["infinity", "b"]),
        frame.insert(OID, ["2024-01-02", "c"]),
        frame.insert(77, ["2024-01-03", "d"]),
    )
    assert items == [Rejected(plan, "id", "infinity", in_key=True, key=(b"infinity",))]
    assert [row["note"] for row in feed.rows()] == [b"a"]
    feed.transaction(frame.insert(OID, ["2024-01-02", "c"]))
    assert feed.stream.take(TABLE_OID) is None


@pytest.mark.parametrize(
    ("columns", "value", "reason"),
    [
        ("id int4, v int4", "x", "malformed"),
        ("id int4, v bool", "maybe", "malformed"),
        ("id int4, v date", "2024-02-30", "malformed"),
    ],
)
def test_a_malformed_value_rejects_its_row(decoder: ModuleType, columns: str, value: str, reason: str) -> None:
    plan = plan_of(columns)
    feed = Feed(decoder, plan)
    assert feed.transaction(frame.insert(OID, ["1", value])) == [Rejected(plan, "v", reason, in_key=False, key=(b"1",))]
    assert feed.stream.take(TABLE_OID) is None


@pytest.mark.parametrize(
    ("columns", "value", "reason"),
    [
        ("id int4, v numeric", "NaN", "nan"),
        ("id int4, v numeric(4,2)", "Infinity", "infinity"),
        ("id int4, v numeric", "1" + "0" * 38, "too many digits"),
        ("id int4, v date", "infinity", "infinity"),
        ("id int4, v date", "2300-01-01", "out of range"),
        ("id int4, v timestamptz", "294276-01-01 00:00:00+00", "out of range"),
    ],
)
def test_fail_on_unfit_rejects(decoder: ModuleType, columns: str, value: str, reason: str) -> None:
    plan = plan_of(columns, on_unfit="fail")
    feed = Feed(decoder, plan)
    assert feed.transaction(frame.insert(OID, ["1", value])) == [Rejected(plan, "v", reason, in_key=False, key=(b"1",))]


def test_an_old_key_that_is_unfit_rejects(decoder: ModuleType) -> None:
    plan = plan_of("id numeric(4,2), note text")
    feed = Feed(decoder, plan)
    assert feed.transaction(frame.delete(OID, key=["NaN", None])) == [
        Rejected(plan, "id", "nan", in_key=True, key=(b"NaN",))
    ]


@pytest.mark.parametrize("old", [{}, {"key": ["7", "b", None]}])
def test_a_rejected_update_names_the_key_that_its_row_has_now(
    decoder: ModuleType, old: dict[str, list[str | None]]
) -> None:
    plan = plan_of("id int4, part text, v date", ("part", "id"), on_unfit="fail")
    feed = Feed(decoder, plan)
    (rejected,) = feed.transaction(frame.update(OID, ["8", "c", "infinity"], **old))
    assert rejected == Rejected(plan, "v", "infinity", in_key=False, key=(b"c", b"8"))
    assert "in the row with part = c, id = 8," in rejected.error.message


# Malformed frames


def body(kind: bytes, *parts: bytes) -> bytes:
    return frame.xlog(kind + b"".join(parts))


BAD_IN_TRANSACTION = {
    "begin within a transaction": frame.begin(2),
    "row of an unknown relation": frame.insert(78, ["1", None]),
    "too few columns": frame.insert(OID, ["1"]),
    "too many columns": frame.insert(OID, ["1", None, None]),
    "no columns": frame.insert(OID, []),
    "too few old columns": frame.update(OID, ["1", None], key=["1"]),
    "too many old columns": frame.delete(OID, full=["1", None, None]),
    "unknown kind": body(b"Z"),
    "stream start of protocol 2": body(b"S", bytes(5)),
    "no kind": frame.xlog(b""),
    "empty frame": frame.framed(b""),
    "neither data nor keep-alive": frame.framed(b"x" + bytes(30)),
    "short header": frame.framed(b"w" + bytes(23)),
    "short keep-alive": frame.framed(b"k" + bytes(16)),
    "long keep-alive": frame.framed(b"k" + bytes(18)),
    "binary value": body(b"I", struct.pack(">I", OID), b"N\0\2b\0\0\0\0n"),
    "unknown value": body(b"I", struct.pack(">I", OID), b"N\0\2nx"),
    "insert with an old row": body(b"I", struct.pack(">I", OID), b"K", frame.tuple_data(["1", None])),
    "update without a row": body(b"U", struct.pack(">I", OID), b"K", frame.tuple_data(["1", None])),
    "update with two old rows": body(
        b"U", struct.pack(">I", OID), b"K", frame.tuple_data(["1", None]), b"K", frame.tuple_data(["1", None])
    ),
    "delete with a new row": body(b"D", struct.pack(">I", OID), b"N", frame.tuple_data(["1", None])),
    "old row that leaves out a value": frame.delete(OID, full=["1", frame.LEFT_OUT]),
    "key left out": frame.update(OID, [frame.LEFT_OUT, "a"]),
    "value length beyond the frame": body(b"I", struct.pack(">I", OID), b"N\0\2t\xff\xff\xff\xff1n"),
    "truncate of more than there is": body(b"T", struct.pack(">IBI", 2, 0, OID)),
    "truncate of very many": body(b"T", struct.pack(">IBI", 0xFFFFFFFF, 0, OID)),
    "relation with an unknown identity": frame.relation(5, [], identity="x"),
    "relation whose name has no end": body(b"R", b"\0\0\0\5public\0", b"t"),
    "relation of more columns than there are": body(b"R", b"\0\0\0\5public\0t\0d\0\2", b"\1id\0", bytes(8)),
    "message of more bytes than there are": body(b"M", bytes(9), b"prefix\0", b"\0\0\0\5abcd"),
}


@pytest.mark.parametrize("name", BAD_IN_TRANSACTION)
def test_a_bad_frame_is_an_error(decoder: ModuleType, plan: Plan, name: str) -> None:
    feed = Feed(decoder, plan)
    with pytest.raises(FrameError) as caught:
        feed.send(frame.begin(1), BAD_IN_TRANSACTION[name])
    assert caught.value.message
    assert caught.value.hint


GOOD = {
    "Begin": frame.begin(0x100),
    "Commit": frame.commit(0x100, 0x110),
    "Origin": frame.origin("o"),
    "Type": frame.type_(1, "t"),
    "Message": frame.message("p", b"content"),
    "Relation": frame.relation(OID, [("id", 23), ("note", 25)]),
    "Insert": frame.insert(OID, ["1", "a"]),
    "Update": frame.update(OID, ["1", "a"], full=["2", "b"]),
    "Delete": frame.delete(OID, key=["1", None]),
    "Truncate": frame.truncate([OID]),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_message_is_used_up_exactly(decoder: ModuleType, plan: Plan, name: str) -> None:
    good = GOOD[name][4:]
    before = [] if name == "Begin" else [frame.begin(1)]
    assert len(Feed(decoder, plan).send(*before, frame.framed(good))) == (name in ("Relation", "Truncate"))
    for wrong in (*(good[:length] for length in range(25, len(good))), good + b"\0"):
        with pytest.raises(FrameError) as caught:
            Feed(decoder, plan).send(*before, frame.framed(wrong))
        assert name in caught.value.message or len(wrong) == 25


@pytest.mark.parametrize("name", ["Commit", "Insert", "Update", "Delete", "Truncate"])
def test_rows_belong_into_transactions(decoder: ModuleType, plan: Plan, name: str) -> None:
    with pytest.raises(FrameError):
        Feed(decoder, plan).send(GOOD[name])
    with pytest.raises(FrameError):
        Feed(decoder, plan).send(frame.begin(1), frame.commit(1, 2), GOOD[name])


def test_an_unknown_kind_is_named(decoder: ModuleType, plan: Plan) -> None:
    with pytest.raises(FrameError, match="Z"):
        Feed(decoder, plan).send(frame.begin(1), frame.xlog(b"Zzz", start=0x16_0000_0ABC))
    with pytest.raises(FrameError, match="16/ABC"):
        Feed(decoder, plan).send(frame.begin(1), frame.xlog(b"Izz", start=0x16_0000_0ABC))


def test_frames_that_are_cut_off(decoder: ModuleType, plan: Plan) -> None:
    whole = frame.begin(1) + frame.insert(OID, ["1", None])
    start = len(frame.begin(1))
    for end in range(start + 1, len(whole)):
        feed = Feed(decoder, plan)
        with pytest.raises(FrameError):
            feed.send(whole[:end])


@pytest.mark.parametrize(
    ("commit_lsn", "committed_at"), [(1 << 56, frame.POSTGRES_EPOCH), (1, (1 << 63) - 1 + frame.POSTGRES_EPOCH)]
)
def test_a_begin_beyond_what_a_version_holds(
    decoder: ModuleType, plan: Plan, commit_lsn: int, committed_at: int
) -> None:
    with pytest.raises(FrameError):
        Feed(decoder, plan).send(frame.begin(commit_lsn, committed_at=committed_at))


def test_epochs_begin_where_they_are_said_to(decoder: ModuleType, plan: Plan) -> None:
    """The third begins before the second: what the second had from there on never happened."""
    feed = Feed(decoder, plan, starts=(0x300, 0x200))
    for number in range(4):
        feed.transaction(frame.insert(OID, [str(number), "a"]))
    versions = [row["_version"] for row in feed.rows()]
    assert versions == [version_of(0, 0x100, 1), *(version_of(2, lsn, 1) for lsn in (0x200, 0x300, 0x400))]
    later = Feed(decoder, plan, starts=(0x200, 0x300))
    for number in range(3):
        later.transaction(frame.insert(OID, [str(number), "a"]))
    assert [row["_version"] for row in later.rows()] == [version_of(each, 0x100 * each + 0x100, 1) for each in range(3)]


def test_an_epoch_has_eight_bits(decoder: ModuleType) -> None:
    assert decoder.StreamDecoder(10, 10, (0,) * 255)
    with pytest.raises(ValueError, match="epoch"):
        decoder.StreamDecoder(10, 10, (0,) * 256)


def test_a_frame_error_never_shows_a_value(decoder: ModuleType, plan: Plan) -> None:
    with pytest.raises(FrameError) as caught:
        Feed(decoder, plan).send(frame.begin(1), frame.insert(OID, ["1", "secret", "secret"]))
    assert "secret" not in caught.value.message + caught.value.hint
