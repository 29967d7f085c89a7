"""The states of a table, and every way from one to another. Nothing else changes a table's state.

    waiting ──► copying ──► catching_up ──► streaming
       ▲           │             │              │
       │           └─────────────┴──► failed ◄──┤
       └──────────── copied again ───────┴──────┘

A table is a consistent image of its source only while it is ``streaming``: until then the stream has not yet passed the
position at which its last part was copied.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a table stands."""

    WAITING = "waiting"  # its changes are streamed, its rows not yet copied
    COPYING = "copying"
    CATCHING_UP = "catching_up"  # copied, and the stream is behind the end of the copy
    STREAMING = "streaming"
    FAILED = "failed"  # set aside, with a reason; the others go on

    @property
    def uncopied(self) -> bool:
        """Whether rows are still to be copied."""
        return self in (State.WAITING, State.COPYING)


WAYS: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.COPYING, State.CATCHING_UP, State.FAILED}),
    State.COPYING: frozenset({State.WAITING, State.CATCHING_UP, State.FAILED}),
    State.CATCHING_UP: frozenset({State.WAITING, State.STREAMING, State.FAILED}),
    State.STREAMING: frozenset({State.WAITING, State.FAILED}),
    State.FAILED: frozenset({State.WAITING}),
}


def change(old: State, new: State) -> State:
    """The new state; ValueError where there is no such way."""
    if new not in WAYS[old]:
        raise ValueError(f"a table cannot go from {old.value} to {new.value}")
    return new
