"""The state store: SQLite in PENSTOCK_HOME, by SQLAlchemy Core, so that a team may put it into PostgreSQL later.

Holds positions, table states and finished parts; never a row's value or a secret.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError

from penstock.errors import ConfigError, StateError
from penstock.lsn import Lsn
from penstock.pipeline.checkpoint import PartRecord, PipeRecord, TableRecord
from penstock.pipeline.epochs import Epochs
from penstock.pipeline.lifecycle import State
from penstock.postgres.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Connection

    from penstock.pipeline.checkpoint import Counted

LAYOUT = 5  # of the tables below; one more with every change of them
_metadata = MetaData()

_pipes = Table(
    "pipes",
    _metadata,
    Column("name", String, primary_key=True),
    Column("slot", String, nullable=False),
    Column("publication", String, nullable=False),
    Column("system_identifier", String, nullable=False),
    Column("timeline", String, nullable=False),  # with those before it
    Column("position", BigInteger, nullable=False),
    Column("epochs", String, nullable=False),
    Column("owns_publication", Boolean, nullable=False),
    Column("owns_slot", Boolean, nullable=False),
)

_tables = Table(
    "tables",
    _metadata,
    Column("pipe", String, primary_key=True),
    Column("oid", BigInteger, primary_key=True),
    Column("full_name", String, nullable=False),
    Column("target", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("hint", String, nullable=False),
    Column("goal", BigInteger, nullable=False),
    Column("seam", BigInteger, nullable=False),
    Column("doubt", BigInteger, nullable=False),
    Column("rows_copied", BigInteger, nullable=False),
    Column("bytes_copied", BigInteger, nullable=False),
    Column("table", String, nullable=False),
    Column("since", String, nullable=False),  # 128 bits
    Column("base", String, nullable=False),  # 128 bits
    Column("building", String, nullable=False),
    Column("target_id", String, nullable=False),
    Column("building_id", String, nullable=False),
    Column("begun", String, nullable=False),
    Column("listed", JSON, nullable=False),
    Column("heals", Boolean, nullable=False),
    Column("counters", JSON, nullable=False),
)
_WIDE = ("since", "base")  # integers that are kept as text

_parts = Table(
    "parts",
    _metadata,
    Column("pipe", String, primary_key=True),
    Column("oid", BigInteger, primary_key=True),
    Column("index", Integer, primary_key=True),
    Column("body", String, nullable=False),
    Column("done", Boolean, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)


def home() -> Path:
    """PENSTOCK_HOME, made when it is missing, for its owner only."""
    path = Path(os.environ.get("PENSTOCK_HOME") or platformdirs.user_state_dir("penstock"))
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"PENSTOCK_HOME {path} cannot be made: {error.strerror}",
            hint="Set PENSTOCK_HOME to a folder that can be written.",
        ) from None
    return path


class StateStore:
    """The store of ``pipeline.checkpoint.Store``. Each method is one transaction."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.db"
        self._engine = create_engine(f"sqlite:///{self._path}", connect_args={"timeout": 30})
        event.listen(self._engine, "connect", _durable)
        with self._errors_told(), self._engine.begin() as connection:
            self._require_layout(connection)
            _metadata.create_all(connection)

    def _require_layout(self, connection: Connection) -> None:
        found = connection.exec_driver_sql("pragma user_version").scalar_one()
        if found == LAYOUT:
            return
        if inspect(connection).has_table(_pipes.name):
            raise StateError(
                f"the state store {self._path} was written by another version of Penstock",
                hint="Go on with that version; or drop the pipe with it (penstock drop), remove the file, and copy again.",
            )
        connection.exec_driver_sql(f"pragma user_version = {LAYOUT}")

    @contextlib.contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            raise StateError(
                f"the state store {self._path} cannot be used: {error.orig}",
                hint="Check PENSTOCK_HOME, its permissions and the free space there; the pipe goes on where it stopped.",
            ) from None

    def close(self) -> None:
        """Close the store's connections."""
        self._engine.dispose()

    def pipe(self, name: str) -> PipeRecord | None:
        """The pipe's record, None before its first run."""
        with self._errors_told(), self._engine.connect() as connection:
            row = connection.execute(select(_pipes).where(_pipes.c.name == name)).mappings().first()
        if row is None:
            return None
        known = {"timeline": Timeline.parse(row["timeline"]), "epochs": Epochs.parse(row["epochs"])}
        return PipeRecord(**{**row, **known, "position": Lsn(row["position"])})

    def save_pipe(self, record: PipeRecord, tables: Sequence[TableRecord] = ()) -> None:
        """Insert or replace the pipe's record, and those of these tables with it."""
        with self._errors_told(), self._engine.begin() as connection:
            texts = {"timeline": str(record.timeline), "epochs": str(record.epochs)}
            _replace(connection, _pipes, {"name": record.name}, _values(record) | texts)
            for table in tables:
                _replace_table(connection, record.name, table)

    def save_position(self, name: str, position: Lsn, counted: Counted) -> None:
        """Save the position up to which everything is written, and the counters of these tables with it."""
        with self._errors_told(), self._engine.begin() as connection:
            connection.execute(update(_pipes).where(_pipes.c.name == name).values(position=int(position)))
            for oid, counters in counted.items():
                connection.execute(
                    update(_tables).where(_tables.c.pipe == name, _tables.c.oid == oid).values(counters=counters)
                )

    def tables(self, name: str) -> list[TableRecord]:
        """The pipe's tables."""
        wanted = select(_tables).where(_tables.c.pipe == name).order_by(_tables.c.full_name)
        with self._errors_told(), self._engine.connect() as connection:
            return [_table_record(dict(row)) for row in connection.execute(wanted).mappings()]

    def save_table(self, name: str, record: TableRecord) -> None:
        """Insert or replace one table's record."""
        with self._errors_told(), self._engine.begin() as connection:
            _replace_table(connection, name, record)

    def replace_tables(self, name: str, records: Sequence[TableRecord]) -> None:
        """Let these be the pipe's tables, none of which has parts."""
        with self._errors_told(), self._engine.begin() as connection:
            for table in (_parts, _tables):
                connection.execute(delete(table).where(table.c.pipe == name))
            for record in records:
                connection.execute(insert(_tables).values(pipe=name, **_values(record) | {"state": record.state.value}))

    def parts(self, name: str, oid: int) -> list[PartRecord]:
        """A table's parts in order; empty before they are planned."""
        wanted = select(_parts).where(_parts.c.pipe == name, _parts.c.oid == oid).order_by(_parts.c.index)
        with self._errors_told(), self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
        return [PartRecord(**{key: value for key, value in row.items() if key not in ("pipe", "oid")}) for row in rows]

    def save_parts(self, name: str, oid: int, parts: Sequence[PartRecord]) -> None:
        """Replace a table's parts."""
        with self._errors_told(), self._engine.begin() as connection:
            connection.execute(delete(_parts).where(_parts.c.pipe == name, _parts.c.oid == oid))
            if parts:
                connection.execute(insert(_parts), [{"pipe": name, "oid": oid, **_values(part)} for part in parts])

    def save_part(self, name: str, oid: int, part: PartRecord) -> None:
        """Replace one part."""
        with self._errors_told(), self._engine.begin() as connection:
            _replace(connection, _parts, {"pipe": name, "oid": oid, "index": part.index}, _values(part))

    def forget_table(self, name: str, oid: int) -> None:
        """Remove everything about one table."""
        with self._errors_told(), self._engine.begin() as connection:
            for table in (_parts, _tables):
                connection.execute(delete(table).where(table.c.pipe == name, table.c.oid == oid))

    def forget(self, name: str) -> None:
        """Remove everything about a pipe."""
        with self._errors_told(), self._engine.begin() as connection:
            for table, column in ((_parts, _parts.c.pipe), (_tables, _tables.c.pipe), (_pipes, _pipes.c.name)):
                connection.execute(delete(table).where(column == name))


def _durable(connection: Any, _record: Any) -> None:
    """A saved position must survive a power cut: the slot is confirmed right after."""
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")


def _values(record: PipeRecord | TableRecord | PartRecord) -> dict[str, Any]:
    return {
        name: str(value) if name in _WIDE else int(value) if isinstance(value, Lsn) else value
        for name in record.__slots__
        for value in (getattr(record, name),)
    }


def _table_record(row: dict[str, Any]) -> TableRecord:
    row.pop("pipe")
    positions = {name: Lsn(row[name]) for name in ("goal", "seam", "doubt")}
    wide = {name: int(row[name]) for name in _WIDE}
    return TableRecord(
        **{**row, **positions, **wide, "state": State(row["state"]), "counters": Counter(row["counters"])}
    )


def _replace_table(connection: Connection, pipe_name: str, record: TableRecord) -> None:
    values = {**_values(record), "state": record.state.value}
    _replace(connection, _tables, {"pipe": pipe_name, "oid": record.oid}, values)


def _replace(connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    condition = [table.c[name] == value for name, value in key.items()]
    if connection.execute(update(table).where(*condition).values(**values)).rowcount == 0:
        connection.execute(insert(table).values(**key | values))
