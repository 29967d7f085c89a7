"""Trying again: for ever, with backoff and jitter, where the error says that it helps; until the pipe is told to stop."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from penstock.errors import PenstockError, Retry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

LONGEST_SECONDS = 10.0
POLL_SECONDS = 0.1
_WAIT = wait_random_exponential(multiplier=0.2, max=LONGEST_SECONDS)


class Stopped(Exception):  # noqa: N818  (it is no error: the pipe was told to stop)
    """The pipe was told to stop while something waited to be tried again."""


class Stop:
    """Tells threads and tasks alike that the pipe is to stop."""

    def __init__(self) -> None:
        self._thread = threading.Event()
        self._task = asyncio.Event()

    def set(self) -> None:
        """Stop. Called in the loop's thread."""
        self._thread.set()
        self._task.set()

    def __bool__(self) -> bool:
        return self._thread.is_set()

    async def sleep(self, seconds: float) -> None:
        """Wait, or raise Stopped as soon as the pipe is to stop."""
        try:
            async with asyncio.timeout(seconds):  # not wait_for: in 3.11 it may swallow a cancellation
                await self._task.wait()
        except TimeoutError:
            return
        raise Stopped

    def sleep_in_thread(self, seconds: float) -> None:
        """The same for a thread."""
        if self._thread.wait(seconds):
            raise Stopped


def helps(error: BaseException) -> bool:
    """Whether trying again helps."""
    return isinstance(error, PenstockError) and error.retry is Retry.AFTER_BACKOFF


def never() -> bool:
    """Wait as long as it takes."""
    return False


async def for_ever(
    attempt: Callable[[], Awaitable[T]],
    stop: Stop,
    report: Callable[[PenstockError], None],
    *,
    until: Callable[[], bool] = never,
) -> T:
    """The result of ``attempt``, tried again for as long as that helps. Raises what cannot be helped, or Stopped.

    Once ``until`` says so the next attempt is made soon: it ends the matter.
    """

    async def once() -> T:
        return await attempt()

    async def sleep(seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0 and not until():
            await stop.sleep(min(left, POLL_SECONDS))

    return await AsyncRetrying(
        wait=_WAIT, retry=retry_if_exception(helps), sleep=sleep, before_sleep=_reporter(report, stop), reraise=True
    )(once)


def in_thread(
    attempt: Callable[[], T], stop: Stop, report: Callable[[PenstockError], None], *, seconds: float = math.inf
) -> T:
    """The same in a thread, for so long."""
    return Retrying(
        wait=_WAIT,
        stop=stop_after_delay(seconds),
        retry=retry_if_exception(helps),
        sleep=stop.sleep_in_thread,
        before_sleep=_reporter(report, stop),
        reraise=True,
    )(attempt)


def _reporter(report: Callable[[PenstockError], None], stop: Stop) -> Callable[[RetryCallState], None]:
    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, PenstockError) and not stop:
            report(error)

    return say
