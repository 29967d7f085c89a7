"""Values that are too large together for memory: from some bytes on they wait in a file until they are sent."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from pathlib import Path

MEMORY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Spilled:
    """A value in the file. Its ``len`` is that of the value."""

    file: BinaryIO
    place: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self) -> bytes:
        """The value itself."""
        self.file.seek(self.place)
        return self.file.read(self.length)


class Spill:
    """Keeps values, the first of them in memory. One thread at a time.

    The file lies in ``folder``, has no name there, and is gone with the last value that refers to it, or with the process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._held = 0
        self._end = 0

    def keep(self, data: bytes) -> bytes | Spilled:
        """The value, or where it is. Raises OSError when the disk is full."""
        self._held += len(data)
        if self._held <= MEMORY_BYTES:
            return data
        if self._file is None:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            self._file = cast("BinaryIO", tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115  (the values close it)
        self._file.seek(self._end)
        self._file.write(data)
        place, self._end = self._end, self._end + len(data)
        return Spilled(self._file, place, len(data))


def read(data: bytes | Spilled) -> bytes:
    """The bytes of a value, wherever they are."""
    return data if isinstance(data, bytes) else data.read()
