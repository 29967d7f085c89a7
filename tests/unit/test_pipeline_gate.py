"""The gate of a table that is copied at a seam: what is dropped, what is read again, and when it opens."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from penstock.pipeline.gate import Gate


@dataclass
class Stream:
    position: int = 100
    reopened: int = 0

    def reopen(self) -> None:
        self.reopened += 1


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def gate(stream: Stream) -> Gate:
    return Gate(lambda: stream.position, stream.reopen, shut=True)


def test_what_is_dropped_before_the_snapshot_is_in_the_copy(gate: Gate) -> None:
    assert gate.shut
    assert list(gate.floors()) == []


def test_a_table_that_was_not_announced_opens_at_once(gate: Gate, stream: Stream) -> None:
    gate.hold()
    assert list(gate.floors()) == [100]
    stream.position = 200
    gate.release()
    assert not gate.shut
    assert (list(gate.floors()), stream.reopened) == ([], 0)


def test_a_table_of_which_rows_were_dropped_opens_with_the_next_connection(gate: Gate, stream: Stream) -> None:
    gate.see()
    gate.hold()
    stream.position = 200
    gate.release()
    assert gate.shut
    assert (list(gate.floors()), stream.reopened) == ([100], 1)
    gate.connected()
    assert not gate.shut
    assert list(gate.floors()) == []


def test_a_table_that_was_announced_while_it_was_set_aside_opens_with_the_next_connection(
    gate: Gate, stream: Stream
) -> None:
    gate.see()
    gate.restart(shut=True)
    gate.hold()
    gate.release()
    assert (gate.shut, stream.reopened) == (True, 1)


def test_a_connection_of_its_own_accord_does_not_open_it(gate: Gate) -> None:
    gate.hold()
    gate.connected()
    assert gate.shut
    assert list(gate.floors()) == [100]


def test_held_again_it_stays_shut(gate: Gate, stream: Stream) -> None:
    gate.see()
    gate.hold()
    gate.release()
    stream.position = 300
    gate.hold()
    gate.connected()
    assert gate.shut
    assert list(gate.floors()) == [100]


def test_an_open_gate_may_be_held_at_an_earlier_place(stream: Stream) -> None:
    gate = Gate(lambda: stream.position, stream.reopen, shut=False)
    gate.see()
    gate.release()
    assert not gate.shut
    gate.hold(50)
    gate.hold(70)
    assert list(gate.floors()) == [50]


def test_what_is_withheld_is_read_again_and_what_waits_already_is_written(stream: Stream) -> None:
    gate = Gate(lambda: stream.position, stream.reopen, shut=False)
    gate.see()
    gate.withhold(60)
    assert (gate.closed, gate.shut, list(gate.floors())) == (True, False, [60])
    gate.connected()  # of its own accord
    assert gate.closed
    gate.see()
    gate.release()
    gate.release()
    assert (gate.closed, list(gate.floors()), stream.reopened) == (True, [60], 2)
    gate.connected()
    assert not gate.closed
    assert list(gate.floors()) == []
