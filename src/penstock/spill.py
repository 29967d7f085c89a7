"""Values that are too large together for memory: from some bytes on they wait in a file until they are sent."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from pathlib import Path

MEMORY_BYTES = 16 << 20


class _File:
    """A file without a name: it is gone with the last value that refers to it, or with the process."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._descriptor, path = tempfile.mkstemp(dir=folder)
        os.unlink(path)  # noqa: PTH108  (mkstemp gives a text)
        self._end = 0

    def __del__(self) -> None:
        os.close(self._descriptor)

    def append(self, data: bytes) -> int:
        """Where it stands. Raises OSError when the disk is full."""
        place, left = self._end, memoryview(data)
        while left:
            written = os.pwrite(self._descriptor, left, self._end)
            self._end += written
            left = left[written:]
        return place

    def read(self, place: int, length: int) -> bytes:
        """What stands there."""
        return os.pread(self._descriptor, length, place)


@dataclass(frozen=True, slots=True)
class Spilled:
    """A value in the file. Its ``len`` is that of the value."""

    file: _File
    place: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self) -> bytes:
        """The value itself."""
        return self.file.read(self.place, self.length)


class Spill:
    """Keeps values, the first of them in memory, the others in a file in ``folder``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._file: _File | None = None
        self._held = 0

    def keep(self, data: bytes) -> bytes | Spilled:
        """The value, or where it is. Raises OSError when the disk is full."""
        self._held += len(data)
        if self._held <= MEMORY_BYTES:
            return data
        if self._file is None:
            self._file = _File(self._folder)
        return Spilled(self._file, self._file.append(data), len(data))


@overload
def read(data: bytes | Spilled) -> bytes: ...
@overload
def read(data: bytes | memoryview | Spilled) -> bytes | memoryview: ...
def read(data: bytes | memoryview | Spilled) -> bytes | memoryview:
    """The bytes of a value, wherever they are."""
    return data.read() if isinstance(data, Spilled) else data
