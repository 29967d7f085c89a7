"""The shop's tables and their first rows, made by the source's server and the same each time."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection

TABLES = ("public.customers", "public.products", "public.orders", "public.order_items")


@dataclass(frozen=True, slots=True)
class Extent:
    """How many rows the shop begins with. Orders have two and a half items on average."""

    customers: int = 20_000
    products: int = 2_000
    orders: int = 100_000


def create(connection: Connection) -> None:
    """Make the tables, in one transaction."""
    with connection.transaction():
        connection.execute(sql.SQL(_statements("shop.sql")))


def seed(connection: Connection, extent: Extent) -> None:
    """Fill the tables, in one transaction, and let the server count what is there."""
    script = _statements("seed.sql")
    for name in ("customers", "products", "orders"):
        script = script.replace(f":{name}", str(getattr(extent, name)))
    with connection.transaction():
        connection.execute(sql.SQL(script))
    connection.execute("analyze")


def _statements(name: str) -> str:
    """A file of the package: as trusted as the code."""
    return files("penstock.demo").joinpath(name).read_text(encoding="utf-8")
