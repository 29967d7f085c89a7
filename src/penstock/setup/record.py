"""What setup has done for a pipe, and how it is taken back: a file in PENSTOCK_HOME, beside the pipe's state.

Not a comment in the source: steps change parameter groups and firewalls too, which have no place for one, and a role that others
share. A step is noted before it is made, so that what a crash left half done can be taken back as well. Never holds a secret.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from penstock.errors import StateError
from penstock.setup.step import Back

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.setup.step import Step


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was made, or at least begun."""

    name: str
    subject: str
    restarts: str  # what is not there for a moment when it is taken back
    back: tuple[Back, ...]


class Record:
    """The steps made for one pipe, the oldest first. Raises StateError."""

    def __init__(self, folder: Path, pipe: str) -> None:
        self._path = folder / f"{pipe}.setup.json"
        self.system = ""  # the system identifier of the server that was set up
        self.done: list[Done] = []
        self._read()

    def _read(self) -> None:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self.system = kept["system"]
            for each in kept["done"]:
                back = tuple(Back(**one) for one in each["back"])
                self.done.append(Done(each["name"], each["subject"], each["restarts"], back))
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StateError(
                f"the record of setup {self._path} cannot be read: {type(error).__name__}",
                hint="Restore it from a backup; or remove it, and take back by hand what setup had done.",
            ) from None

    def add(self, step: Step, system: str) -> None:
        """Note a step that is about to be made. One that takes back the same is there already after a crash."""
        done = Done(step.name, step.subject, step.undo_restarts, step.back)
        if step.back and done not in self.done:
            self.done.append(done)
        self.system = system or self.system
        self._write()

    def taken_back(self, back: Back) -> None:
        """Forget this of the newest step that has it, and the step with the last of its own."""
        place = max(place for place, each in enumerate(self.done) if back in each.back)
        done = self.done[place]
        left = replace(done, back=tuple(each for each in done.back if each != back))
        self.done[place : place + 1] = [left] if left.back else []
        self._write()

    def _write(self) -> None:
        """At once or not at all, for its owner only."""
        try:
            if not self.done:
                self._path.unlink(missing_ok=True)
                return
            text = json.dumps({"system": self.system, "done": [asdict(each) for each in self.done]}, indent=1)
            scratch = self._path.with_suffix(".new")
            handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
        except OSError as error:
            raise StateError(
                f"the record of setup {self._path} cannot be written: {error.strerror}",
                hint="Check PENSTOCK_HOME, its permissions and the free space there.",
            ) from None
