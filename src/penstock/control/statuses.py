"""How a pipe is: asked of the process that runs it, or read from what it left behind."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from penstock.control import queries
from penstock.control.store import StateStore
from penstock.errors import ConfigError
from penstock.pipeline.figures import at_rest

if TYPE_CHECKING:
    from pathlib import Path

    from penstock.observe.status import PipeStatus


def status(folder: Path, pipe: str) -> PipeStatus:
    """``pipe`` is a definition's path, or a name. Raises ConfigError for a pipe that has not run here."""
    definition = queries.definition_of(pipe)
    name = definition.name if definition else pipe
    running = queries.ask_status(folder, name)
    if running is not None:
        return running
    with contextlib.closing(StateStore(folder)) as store:
        known = at_rest(store, name)
    if known is None:
        raise ConfigError(
            f'no pipe "{name}" has run here', hint="Run it: penstock run PIPE.toml; PENSTOCK_HOME holds the state."
        )
    return known
