"""Whether a table's changes go into ClickHouse, or are left for later.

Rows of some tables cannot take each other's place (``Plan.at_seam``), so what came with the copy must not come with the stream
too. Such a table's gate is shut until its copy has its snapshot, and with it the seam: what ended before is in the copy.
While it is shut, changes are dropped. From ``hold`` on they are also to be read again: the gate's floor keeps
their WAL, and the stream is opened anew before the gate is. That costs little, as the snapshot's own slot keeps that WAL too.

A table that ClickHouse refuses for long is withheld in the same way, so that what waits for it takes no memory from the others: only
what is here already still waits to be written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Gate:
    """The gate of one table. ``position`` says how far the stream has come, ``reopen`` asks for a new connection."""

    def __init__(self, position: Callable[[], int], reopen: Callable[[], None], *, shut: bool) -> None:
        self.shut = shut
        self.withheld = False
        self._position = position
        self._reopen = reopen
        self._floor: int | None = None  # what came later is read again
        self._seen = False  # the table was announced on this connection: rows of it may have been dropped
        self._may_open = False

    @property
    def closed(self) -> bool:
        """Whether changes are dropped from here on; those that wait already are too where the gate is ``shut``."""
        return self.shut or self.withheld

    def restart(self, *, shut: bool) -> None:
        """What was to be read again is not needed any more: the table is copied anew."""
        self._open()
        self.shut = shut

    def hold(self, floor: int | None = None) -> None:
        """Drop changes from here on (or from ``floor`` on), and read them again once it may open."""
        self._keep(floor)
        self.shut = True

    def withhold(self, floor: int | None = None) -> None:
        """The same, but what waits already is not dropped."""
        self._keep(floor)
        self.withheld = True

    def _keep(self, floor: int | None) -> None:
        floor = self._position() if floor is None else floor
        self._floor = floor if self._floor is None else min(floor, self._floor)
        self._may_open = False

    def release(self) -> None:
        """There is nothing to wait for any more."""
        if self.closed and self._seen:
            self._may_open = True
            self._reopen()
        else:
            self._open()

    def see(self) -> None:
        """The table was announced."""
        self._seen = True

    def connected(self) -> None:
        """The stream begins again, at or before the floor."""
        self._seen = False
        if self._may_open:
            self._open()

    def floors(self) -> Iterator[int]:
        """The position that must not be passed, if there is one."""
        if self._floor is not None:
            yield self._floor

    def _open(self) -> None:
        self.shut = self.withheld = self._may_open = False
        self._floor = None
