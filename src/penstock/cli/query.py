"""penstock query: reads the destination, also of a running pipe."""

from __future__ import annotations

from pathlib import Path

from penstock.clickhouse.client import Client
from penstock.config import Pipe, load
from penstock.control.queries import ask
from penstock.control.store import home
from penstock.errors import ConfigError


def ask_pipe(pipe: str, sql: str, output_format: str) -> bytes:
    """The result in ``output_format``. ``pipe`` is a definition's path, or the name of a pipe that runs."""
    definition = load(Path(pipe)) if pipe.endswith(".toml") or Path(pipe).is_file() else None
    folder = home()
    result = ask(folder, definition.name if definition else pipe, sql, output_format)
    if result is not None:
        return result
    if definition is None:
        raise ConfigError(f'no pipe "{pipe}" runs here', hint="Give the path of its definition, such as shop.toml.")
    return _read(definition, sql, output_format, folder)


def _read(definition: Pipe, sql: str, output_format: str, folder: Path) -> bytes:
    client = Client.open(definition.destination, scratch=folder / f"{definition.name}.query")
    try:
        return client.raw(sql, output_format, database=definition.database)
    finally:
        client.close()
