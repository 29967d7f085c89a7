"""The messages of pgoutput, protocol version 1, and the frames they come in (PostgreSQL manual, Logical Replication Message Formats).

Only the layout is known here: what a message means is told in ``reference.py``. Every length is checked before it is
trusted, and a message must be used up exactly; anything else is a FrameError that names the message and its position.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from penstock.batch import LSN_BITS, Relation, RelationColumn
from penstock.decode.messages import UNCHANGED, Begin, Commit, Delete, Insert, KeepAlive, TruncateTables, Update
from penstock.errors import FrameError
from penstock.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.decode.messages import Field, Message, Tuple


_POSTGRES_EPOCH = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970
_LARGEST_TIME = (1 << 63) - 1 - _POSTGRES_EPOCH
_LENGTH = struct.Struct(">I")
_HEADER = struct.Struct(">cQQq")  # 'w', start of the record, end of WAL, time
_KEEPALIVE = struct.Struct(">cQq?")


def split(frames: bytes) -> Iterator[bytes]:
    """The payloads of 4-byte-length-prefixed frames."""
    place = 0
    while place < len(frames):
        start = place + _LENGTH.size
        end = start + _LENGTH.unpack_from(frames, place)[0] if start <= len(frames) else start
        if end > len(frames):
            raise FrameError("the last frame of the stream is cut off", hint=_HINT)
        yield frames[start:end]
        place = end


def start_of(payload: bytes) -> int:
    """The LSN of the WAL record that a data frame's message is of."""
    return int.from_bytes(payload[1:9], "big")


def parse(payload: bytes) -> Message | None:
    """Read one frame's payload; None for a message that says nothing about rows (Origin, Type, Message)."""
    kind = payload[:1]
    if kind == b"k":
        if len(payload) != _KEEPALIVE.size:
            raise FrameError(f"a keep-alive has {len(payload)} bytes instead of {_KEEPALIVE.size}", hint=_HINT)
        _, wal_end, _, reply_requested = _KEEPALIVE.unpack(payload)
        return KeepAlive(wal_end, reply_requested)
    if kind != b"w":
        raise FrameError(f"a frame begins with {kind!r}, which is neither data nor a keep-alive", hint=_HINT)
    if len(payload) <= _HEADER.size:
        raise FrameError(f"a data frame has only {len(payload)} bytes", hint=_HINT)
    reader = Reader(payload)
    known = _READERS.get(reader.kind)
    if known is None:
        raise reader.error(f"the message is of the unknown kind {reader.kind!r}")
    message = known(reader)
    reader.finish()
    return message


_HINT = "Penstock reads the stream again from the last confirmed position. If it comes back, a proxy in between may be at fault."


class Reader:
    """Reads the message of one data frame from its front."""

    __slots__ = ("_payload", "_place", "_start", "kind")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._start = Lsn(_HEADER.unpack_from(payload)[1])
        self.kind = payload[_HEADER.size : _HEADER.size + 1]
        self._place = _HEADER.size + 1

    def error(self, problem: str) -> FrameError:
        """A FrameError that says where this message stands."""
        name = _NAMES.get(self.kind, "a message")
        return FrameError(f"{name} at {self._start}: {problem}", hint=_HINT)

    def raw(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        end = self._place + length
        if end > len(self._payload):
            raise self.error(f"{end - len(self._payload)} bytes are missing")
        part = self._payload[self._place : end]
        self._place = end
        return part

    def unsigned(self, width: int) -> int:
        """A big-endian number of ``width`` bytes."""
        return int.from_bytes(self.raw(width), "big")

    def signed(self, width: int) -> int:
        """A big-endian two's complement number of ``width`` bytes."""
        return int.from_bytes(self.raw(width), "big", signed=True)

    def text(self) -> bytes:
        """A text that ends with a zero byte."""
        end = self._payload.find(b"\0", self._place)
        if end < 0:
            raise self.error("a text has no end")
        text = self._payload[self._place : end]
        self._place = end + 1
        return text

    def name(self) -> str:
        """A text that is the name of something; bytes that are not UTF-8 become lone surrogates, as the catalog's do."""
        return self.text().decode("utf-8", "surrogateescape")

    def finish(self) -> None:
        """The message must end here."""
        if self._place != len(self._payload):
            raise self.error(f"{len(self._payload) - self._place} bytes are left over")

    def tuple_of_row(self) -> Tuple:
        """TupleData of a row as it is now. One loop, as most of a stream is read here."""
        fields: list[Field] = []
        payload, place = self._payload, self._place + 2
        for _ in range(self.unsigned(2)):
            kind, place = payload[place : place + 1], place + 1
            if kind == b"t":
                start = place + 4
                place = start + int.from_bytes(payload[place:start], "big")
                fields.append(payload[start:place])
            elif kind == b"n":
                fields.append(None)
            elif kind == b"u":
                fields.append(UNCHANGED)
            elif kind:
                raise self.error(f"a value is of the unknown kind {kind!r}")
            if place > len(payload):
                raise self.error(f"{place - len(payload)} bytes are missing")
        self._place = place
        return tuple(fields)

    def old_tuple(self) -> Tuple:
        """TupleData of a row as it was: PostgreSQL sends its out-of-line values whole."""
        old = self.tuple_of_row()
        if UNCHANGED in old:
            raise self.error("an old row leaves out a value")
        return old


def _begin(reader: Reader) -> Begin:
    commit_lsn, time, xid = reader.unsigned(8), reader.signed(8), reader.unsigned(4)
    if commit_lsn >> LSN_BITS:
        raise reader.error(f"the position {Lsn(commit_lsn)} is beyond {LSN_BITS} bits")
    if time > _LARGEST_TIME:
        raise reader.error("the commit time is out of range")
    return Begin(commit_lsn, time + _POSTGRES_EPOCH, xid)


def _commit(reader: Reader) -> Commit:
    reader.raw(1 + 8)  # flags, not used so far; the commit's own position, known from Begin
    end_lsn = reader.unsigned(8)
    reader.raw(8)  # the commit time, known from Begin
    return Commit(end_lsn)


def _origin(reader: Reader) -> None:
    reader.raw(8)
    reader.text()


def _type(reader: Reader) -> None:
    reader.raw(4)
    reader.text()
    reader.text()


def _message(reader: Reader) -> None:
    reader.raw(1 + 8)
    reader.text()
    reader.raw(reader.unsigned(4))


def _relation(reader: Reader) -> Relation:
    oid, schema, name, identity = reader.unsigned(4), reader.name(), reader.name(), reader.raw(1)
    if identity not in (b"d", b"n", b"f", b"i"):
        raise reader.error(f"the replica identity {identity!r} is unknown")
    columns = tuple([_relation_column(reader) for _ in range(reader.unsigned(2))])
    return Relation(oid, schema, name, identity.decode(), columns)


def _relation_column(reader: Reader) -> RelationColumn:
    in_key = reader.unsigned(1) & 1
    return RelationColumn(reader.name(), reader.unsigned(4), reader.signed(4), bool(in_key))


def _insert(reader: Reader) -> Insert:
    oid = reader.unsigned(4)
    _expect_new(reader, reader.raw(1))
    return Insert(oid, reader.tuple_of_row())


def _update(reader: Reader) -> Update:
    oid, marker = reader.unsigned(4), reader.raw(1)
    old = None
    if marker in (b"K", b"O"):
        old = reader.old_tuple()
        _expect_new(reader, reader.raw(1))
    else:
        _expect_new(reader, marker)
    return Update(oid, reader.tuple_of_row(), old, marker == b"O")


def _delete(reader: Reader) -> Delete:
    oid, marker = reader.unsigned(4), reader.raw(1)
    if marker not in (b"K", b"O"):
        raise reader.error(f"an old row is marked {marker!r}")
    return Delete(oid, reader.old_tuple(), marker == b"O")


def _expect_new(reader: Reader, marker: bytes) -> None:
    if marker != b"N":
        raise reader.error(f"a new row is marked {marker!r}")


def _truncate(reader: Reader) -> TruncateTables:
    count, options = reader.unsigned(4), reader.unsigned(1)
    oids = reader.raw(4 * count)
    return TruncateTables(struct.unpack(f">{count}I", oids), bool(options & 1), bool(options & 2))


_READERS: dict[bytes, Callable[[Reader], Message | None]] = {
    b"B": _begin,
    b"C": _commit,
    b"O": _origin,
    b"R": _relation,
    b"Y": _type,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
    b"M": _message,
}
_NAMES = {
    b"B": "Begin",
    b"C": "Commit",
    b"O": "Origin",
    b"R": "Relation",
    b"Y": "Type",
    b"I": "Insert",
    b"U": "Update",
    b"D": "Delete",
    b"T": "Truncate",
    b"M": "Message",
}
