"""A value that is well written, and has no place in its ClickHouse type."""

from __future__ import annotations

from penstock.batch import REASONS

NAN, INFINITY, TOO_MANY_DIGITS, OUT_OF_RANGE, OTHER_DIMENSIONS, LOWER_BOUND, NULL, NO_OBJECT = REASONS


class UnfitError(Exception):
    """A value that its ClickHouse type cannot hold. ``nearest`` stands in for it; ``bounded``: also where NULL is possible."""

    def __init__(self, reason: int, nearest: bytes, *, bounded: bool) -> None:
        super().__init__(REASONS[reason])
        self.reason = reason
        self.nearest = nearest
        self.bounded = bounded
