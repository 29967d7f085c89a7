"""When the stream is let go, so that a server that shuts down can end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.errors import SourceUnavailableError
from penstock.lsn import Lsn
from penstock.pipeline import lookout
from penstock.pipeline.lookout import REFUSALS, Lookout


class _Refused:
    """A server that takes no more connections."""

    def __init__(self) -> None:
        self.asked = 0

    def connect(self) -> Any:
        self.asked += 1
        raise SourceUnavailableError("the database system is shutting down", hint="")


@pytest.mark.parametrize(
    ("written", "received", "working", "let_go"),
    [
        pytest.param(7, 7, False, False, id="idle"),
        pytest.param(7, 9, False, True, id="rows wait"),
        pytest.param(7, 7, True, True, id="a definition is looked up"),
    ],
)
def test_a_pipe_that_cannot_go_on_lets_go(
    monkeypatch: pytest.MonkeyPatch, written: int, received: int, working: bool, let_go: bool
) -> None:
    monkeypatch.setattr(lookout, "LOOK_SECONDS", 0.0)
    connector: Any = _Refused()
    progress: Any = SimpleNamespace(position=Lsn(7), written=Lsn(written), received=Lsn(received), working=working)
    unused: Any = None
    ended: list[bool] = []
    stream: Any = SimpleNamespace(hang_up=lambda: ended.append(True))

    async def look() -> None:
        watch = Lookout(connector, unused, {}, progress, unused, unused)
        watch.stream = stream
        running = asyncio.create_task(watch.run())
        while connector.asked < REFUSALS + 3:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(look())
    assert bool(ended) is let_go
