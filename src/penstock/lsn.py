"""A WAL position: an ``int`` that prints as PostgreSQL writes it."""

from __future__ import annotations

from typing import Self


class Lsn(int):
    """A byte position in PostgreSQL's WAL (``pg_lsn``), 0 for none."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``16/B374D848``; raises ValueError for anything else."""
        high, slash, low = text.partition("/")
        if not slash or not 1 <= len(high) <= 8 or not 1 <= len(low) <= 8:
            raise ValueError(f"not a WAL position: {text!r}")
        return cls(int(high, 16) << 32 | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec[-1:] in set("bcdoxXn") else format(str(self), spec)
