"""Epochs: what keeps versions rising where PostgreSQL's positions start over, behind what was seen (docs/design/0013)."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.batch import MOST_EPOCHS, epoch_of, version_of
from penstock.errors import SlotError
from penstock.lsn import Lsn


@dataclass(frozen=True, slots=True)
class Epochs:
    """The epochs of a pipe. ``starts``: the commit positions at which those after the first begin.

    Commits before the start of an epoch keep the version that they had when they were read first: reading them again changes nothing.
    """

    starts: tuple[Lsn, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Epochs:
        """Read what ``str`` gives."""
        return cls(tuple(Lsn.parse(each) for each in text.split()))

    def __str__(self) -> str:
        return " ".join(map(str, self.starts))

    def version(self, commit_lsn: int) -> int:
        """The smallest version of a row of the transaction that commits there."""
        return version_of(epoch_of(self.starts, commit_lsn), commit_lsn, 0)

    def risen(self, start: Lsn) -> Epochs:
        """With one more, which begins at ``start``. Raises SlotError when there are no more."""
        if len(self.starts) == MOST_EPOCHS:
            raise SlotError(
                f"the source has lost changes {MOST_EPOCHS} times, and a version has no room for one more",
                hint="Copy again: penstock drop PIPE.toml --tables, then penstock run.",
            )
        return Epochs((*self.starts, start))
