"""The one way to ClickHouse: statements, reads and inserts, over HTTP(S) or into chDB inside this process.

Responsible for connections, for what the driver needs to be told, and for turning every driver error into one of
penstock.errors. Not for what the statements mean.

Safe for threads: a statement borrows a driver client of its own from a stack, so that several run in parallel and none shares
a connection; a driver that failed is thrown away. For HTTP that resolves the name anew, and chDB 4.4 needs it: what a
failed statement had already written stands in front of the next answer of the same connection.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import lz4.frame  # type: ignore[import-untyped]  # it comes with the driver, without types
import urllib3.exceptions
from clickhouse_connect.driver.binding import escape_str, format_str
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.external import ExternalData

from penstock.clickhouse import address, failures
from penstock.clickhouse.connect import Scalar, connect, folder_errors, reading_settings
from penstock.clickhouse.reading import one_query
from penstock.errors import DestinationUnavailableError, PenstockError
from penstock.spill import Spill

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    from clickhouse_connect.driver import Client as Driver

    from penstock.config import Destination

PIECE_BYTES = 1 << 20
KILL_SECONDS = 60.0
_POLL_SECONDS = 0.02
_BODY_SUFFIX = ".native"
_RUNNING = "select 1 from system.processes where startsWith(query_id, {id:String}) or startsWith(query, {mark:String})"
_KILL = "kill query where startsWith(query_id, {id:String}) or startsWith(query, {mark:String}) sync"


def quoted(name: str) -> str:
    """An identifier in backticks. The driver's ``quote_identifier`` takes a name such as ``"x"`` for one that is quoted already."""
    return f"`{escape_str(name)}`"


@dataclass(frozen=True, slots=True)
class Into:
    """Where a Native body goes. With a ``selection``, expressions over the columns of ``structure``, these are what is inserted."""

    database: str
    table: str
    columns: tuple[str, ...]
    selection: str = ""
    structure: str = ""

    @property
    def name(self) -> str:
        """The table and its columns, as they stand in a statement."""
        columns = ", ".join(quoted(name) for name in self.columns)
        return f"{quoted(self.database)}.{quoted(self.table)} ({columns})"


class Client:
    """A destination. ``open()`` makes one, ``close()`` ends every connection; statements are blocking."""

    def __init__(self, where: address.Address, scratch: Path) -> None:
        self._where = where
        self.scratch = scratch
        self._idle: dict[bool, list[Driver]] = {False: [], True: []}  # by whether they only read
        self._known: Mapping[str, Any] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._anchor: Driver | None = None
        self._reading: set[str] = set()  # ids of users' queries that run

    @classmethod
    def open(cls, destination: Destination, *, scratch: Path) -> Self:
        """A client of ``destination``. A server is connected to by the first statement, an embedded database now.

        ``scratch`` is a folder of ours for bodies on their way into chDB; what an earlier process left there is removed.
        Raises ConfigError for a wrong DSN, DestinationRefusedError for a folder that cannot be opened.
        """
        for name in ("clickhouse_connect", "urllib3"):  # they log what they raise as well, with statements in it
            logging.getLogger(name).setLevel(logging.CRITICAL)
        client = cls(address.read(destination), scratch)
        if client.embedded:
            with folder_errors(scratch):
                scratch.mkdir(parents=True, exist_ok=True)
                for left_over in scratch.glob(f"*{_BODY_SUFFIX}"):
                    left_over.unlink()
            client._anchor = client._connect(reading=False)
        return client

    @property
    def embedded(self) -> bool:
        """Whether the database runs inside this process."""
        return self._where.path is not None

    @property
    def name(self) -> str:
        """For people: which ClickHouse, and where."""
        return self._where.name

    def close(self) -> None:
        """Close every connection. A statement that still runs closes its own when it ends."""
        with self._lock:
            self._closed = True
            drivers = [*self._idle[False], *self._idle[True], *([self._anchor] if self._anchor else [])]
            self._idle = {False: [], True: []}
            self._anchor = None
        for driver in drivers:
            driver.close()

    def command(
        self,
        sql: str,
        parameters: Mapping[str, object] | None = None,
        settings: Mapping[str, Scalar] | None = None,
        *,
        subject: str = "",
    ) -> None:
        """Run a statement whose answer does not matter. ``subject`` is the object that errors name; empty: the server."""
        with self._borrowed(subject) as driver:
            driver.command(sql, parameters=_mutable(parameters), settings=_mutable(settings))

    def define(self, sql: str, settings: Mapping[str, Scalar] | None = None, *, subject: str) -> None:
        """Run DDL: where ClickHouse refuses the statement itself, the error quotes its words, for no row's value is in them."""
        with self._borrowed(subject, failures.of_ddl) as driver:
            driver.command(sql, settings=_mutable(settings))

    def rows(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, subject: str = ""
    ) -> list[tuple[Any, ...]]:
        """The rows of a query, as Python objects."""
        with self._borrowed(subject) as driver:
            return [tuple(row) for row in driver.query(sql, parameters=_mutable(parameters)).result_rows]

    def rows_over(
        self, sql: str, body: bytes, structure: str, *, settings: Mapping[str, Scalar] | None = None, subject: str
    ) -> list[tuple[Any, ...]]:
        """The rows of a query over rows of ours, a Native body of this structure, for which ``{given}`` stands in it."""
        path = self.scratch / f"{uuid.uuid4().hex}{_BODY_SUFFIX}"
        given, external = "given", None
        try:
            if self.embedded:
                given = f"file({format_str(str(path))}, 'Native', {format_str(structure)})"
                with folder_errors(self.scratch):
                    path.write_bytes(body)
            else:
                external = ExternalData(file_name=given, data=body, fmt="Native", structure=structure)
            with self._borrowed(subject) as driver:
                sql = sql.replace("{given}", given)
                answer = driver.query(sql, settings=_mutable(settings), external_data=external)
                return [tuple(row) for row in answer.result_rows]
        finally:
            path.unlink(missing_ok=True)

    def native(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, subject: str = "", most_bytes: int = 0
    ) -> bytes:
        """The rows of a query as Native blocks, as they came. Raises ResultTooLargeError for more than ``most_bytes``."""
        bounds: dict[str, Scalar] = {}
        if most_bytes:
            bounds = {
                "max_result_bytes": most_bytes,
                "result_overflow_mode": "throw",
                "max_memory_usage": 8 * most_bytes,
            }
        with self._borrowed(subject, failures.of_bounded if most_bytes else failures.of_statement) as driver:
            return driver.raw_query(sql, parameters=_mutable(parameters), settings=_mutable(bounds), fmt="Native")

    def spill(self) -> Spill:
        """Where values wait that are too large for memory."""
        return Spill(self.scratch)

    def raw(self, sql: str, output_format: str, *, database: str = "default") -> bytes:
        """The answer to a user's query in any of ClickHouse's formats; names without a database are of ``database``.

        It can only read. A ConfigError quotes the server's words. An embedded database bounds the result.
        """
        query = one_query(sql)
        query_id = uuid.uuid4().hex
        with self._borrowed("", failures.of_query, reading=True) as driver:
            driver.database = database
            self._reading.add(query_id)
            try:
                return driver.raw_query(f"{_mark(query_id)} {query}", fmt=output_format)
            finally:
                self._reading.discard(query_id)

    def end_reading(self) -> None:
        """Cancel the users' queries that run."""
        for query_id in list(self._reading):
            self.kill(query_id)

    def knows(self, setting: str) -> bool:
        """Whether the server has this setting and lets this user change it."""
        if not self._known:
            with self._borrowed(""):
                pass
        found = self._known.get(setting)
        return found is not None and not found.readonly

    def insert(
        self, into: Into, chunks: Iterable[bytes | memoryview], *, settings: Mapping[str, Scalar], query_id: str
    ) -> None:
        """Send one Native body, and return when the server has taken it. ``query_id`` is what ``kill()`` goes by."""
        with self._borrowed(f"{into.database}.{into.table}", failures.of_insert) as driver:
            if self.embedded:
                self._insert_file(driver, into, chunks, settings, query_id)
                return
            compression = None if self._where.on_loopback else "lz4"
            given = f" select {into.selection} from input({format_str(into.structure)})" if into.selection else ""  # noqa: S608 -- quoted
            driver.raw_insert(
                into.name + given,
                None,
                _pieces(chunks) if compression is None else _compressed(_pieces(chunks)),
                settings={**settings, "query_id": query_id},
                fmt="Native",
                compression=compression,
            )

    def _insert_file(
        self,
        driver: Driver,
        into: Into,
        chunks: Iterable[bytes | memoryview],
        settings: Mapping[str, Scalar],
        query_id: str,
    ) -> None:
        """ChDB reads a body from a file. The driver's own way writes it to the system's temporary folder."""
        path = self.scratch / f"{query_id}{_BODY_SUFFIX}"
        try:
            with folder_errors(self.scratch), path.open("wb") as body:
                body.writelines(chunks)
            clause = ", ".join(f"{name} = {format_str(str(value))}" for name, value in settings.items())
            file = format_str(str(path))
            given = f"from infile {file} settings {clause} format Native"
            if into.selection:
                given = f"select {into.selection} from file({file}, 'Native', {format_str(into.structure)}) settings {clause}"  # noqa: S608 -- quoted
            driver.command(f"{_mark(query_id)} insert into {into.name} {given}")
        finally:
            path.unlink(missing_ok=True)

    def kill(self, query_id: str) -> None:
        """Cancel the insert or query of this id, or those whose ids begin so, and return when it is certain that it does not run any more.

        Raises DestinationUnavailableError when that cannot be made certain.
        """
        parameters = {"id": query_id, "mark": _mark(query_id)}
        deadline = time.monotonic() + KILL_SECONDS
        while self.rows(_RUNNING, parameters):
            if time.monotonic() > deadline:
                raise DestinationUnavailableError(
                    f"{self.name}: a statement that was given up does not end", hint="Look at system.processes there."
                )
            self.command(_KILL, parameters)
            time.sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def _borrowed(
        self, subject: str, meaning: failures.Reading = failures.of_statement, *, reading: bool = False
    ) -> Iterator[Driver]:
        driver = self._take(reading=reading)
        try:
            yield driver
        except BaseException as error:
            with contextlib.suppress(Exception):
                driver.close()
            if isinstance(error, (ClickHouseError, urllib3.exceptions.HTTPError, OSError)):
                raise translated(error, subject or self.name, meaning) from None
            raise
        with self._lock:
            if not self._closed:
                self._idle[reading].append(driver)
                return
        driver.close()

    def _take(self, *, reading: bool) -> Driver:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the client of {self.name} is closed")
            if self._idle[reading]:
                return self._idle[reading].pop()
        return self._connect(reading=reading)

    def _connect(self, *, reading: bool) -> Driver:
        try:
            driver = connect(self._where, reading_settings(self._where) if reading else {})
        except (ClickHouseError, urllib3.exceptions.HTTPError, OSError) as error:
            raise translated(error, self.name, failures.of_statement) from None
        self._known = driver.server_settings
        return driver


def translated(error: BaseException, subject: str, meaning: failures.Reading) -> PenstockError:
    """What a driver's error means. The one place where that is decided."""
    text = str(error)
    if isinstance(error, ClickHouseError) and (code := failures.code_of(error, text)):
        return meaning(subject, code, text)
    return failures.of_transport(subject, error, text)


def _mark(query_id: str) -> str:
    """ChDB gives statements ids of its own: ours stands in front of the text."""
    return f"/* {query_id} */"


def _mutable(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return dict(values) if values else None


def _pieces(chunks: Iterable[bytes | memoryview]) -> Generator[bytes, None, None]:
    """Small chunks joined and large ones cut: each piece is a network packet or more, and the driver copies it as a whole.

    An iterator, so that the driver never sends a body twice.
    """
    waiting: list[bytes | memoryview] = []
    size = 0
    for chunk in chunks:
        if len(chunk) < PIECE_BYTES:
            waiting.append(chunk)
            size += len(chunk)
        if waiting and (size >= PIECE_BYTES or len(chunk) >= PIECE_BYTES):
            yield b"".join(waiting)
            waiting, size = [], 0
        if len(chunk) >= PIECE_BYTES:
            for start in range(0, len(chunk), PIECE_BYTES):
                yield bytes(chunk[start : start + PIECE_BYTES])
    if waiting:
        yield b"".join(waiting)


def _compressed(pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    with lz4.frame.LZ4FrameCompressor() as compressor:
        yield compressor.begin()
        for piece in pieces:
            yield compressor.compress(piece)
        yield compressor.flush()
