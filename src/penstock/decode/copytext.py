"""COPY's text format to batches (PostgreSQL manual, COPY, File Formats, Text Format)."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.batch import version_of
from penstock.decode.binding import Encoding, RowRejectedError, identity_of
from penstock.decode.rows import Pending
from penstock.errors import FrameError
from penstock.plan import Operation

if TYPE_CHECKING:
    from penstock.batch import Batch
    from penstock.plan import Plan

_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.)|\Z)", re.DOTALL)
_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_HINT = "The part is copied again. If it comes back, a proxy in between may be at fault."


class CopyDecoder:
    """Rows of one table from COPY TO STDOUT, whose columns are the plan's.

    All rows of a chunk are decoded; a limit passed within it shows in ``full`` afterwards.
    """

    def __init__(self, plan: Plan, max_rows: int, max_bytes: int, first_ordinal: int) -> None:
        self._plan = plan
        self._encoding = Encoding(plan)
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._ordinal = first_ordinal
        self._split = b""  # a row's beginning
        self._pending = Pending(plan)

    @property
    def full(self) -> bool:
        """Whether a limit is reached and the rows are to be taken."""
        return self._pending.rows >= self._max_rows or self._pending.text_bytes >= self._max_bytes

    def receive(self, chunk: bytes | bytearray | memoryview) -> None:
        """Decode the rows that end in this chunk.

        Raises FrameError where the text is not COPY's; UnfitKeyError, UnfitValueError and BadDataError for a value.
        """
        *lines, self._split = (self._split + bytes(chunk)).split(b"\n")
        for line in lines:
            self._decode(line)

    def take(self) -> Batch | None:
        """The rows so far, None without any."""
        if not self._pending.rows:
            return None
        batch = self._pending.batch()
        self._pending = Pending(self._plan)
        return batch

    def finish(self) -> None:
        """The copy has ended. Raises FrameError where its last row has not."""
        if self._split:
            raise self._error("the last row is cut off")

    def _decode(self, line: bytes) -> None:
        fields = line.split(b"\t")
        if len(fields) != len(self._plan.columns):
            raise self._error(f"a row has {len(fields)} columns instead of {len(self._plan.columns)}")
        texts = [self._text(each) for each in fields]
        try:
            row = self._encoding.row(texts, Operation.COPY)
        except RowRejectedError as error:
            raise replace(error.rejected, key=identity_of(self._plan, texts)).error from None
        if self._plan.event_log:
            row.version = version_of(0, 0, self._ordinal)
            self._ordinal += 1
        self._pending.append(row)

    def _text(self, field: bytes) -> bytes | None:
        if field == b"\\N":
            return None
        return _ESCAPE.sub(self._unescaped, field) if b"\\" in field else field

    def _unescaped(self, found: re.Match[bytes]) -> bytes:
        octal, hexadecimal, letter = found.groups()
        if octal:
            return bytes([int(octal, 8) & 0xFF])
        if hexadecimal:
            return bytes([int(hexadecimal, 16)])
        if not letter:
            raise self._error("a value ends with a lone backslash")
        return _LETTERS.get(letter, letter)

    def _error(self, problem: str) -> FrameError:
        return FrameError(f"COPY of {self._plan.table.full_name}: {problem}", hint=_HINT)
