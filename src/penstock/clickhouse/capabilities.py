"""What a server can hold, found by asking it: a version number alone does not tell, and out of range it clamps in silence."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from penstock.errors import DestinationRefusedError, TableError
from penstock.typemap import Capabilities

if TYPE_CHECKING:
    from penstock.clickhouse.client import Client

_UTC = ("UTC", "UCT", "Universal", "Zulu")
OLDEST = (24, 8)
"""The oldest release that the tests run on."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAYS = ("0001-01-01", "1900-01-01", "1925-01-01", "1970-01-01")
_LAST_DAYS = ("9999-12-31", "2299-12-31", "2283-11-11", "2149-06-06")
_DAYS = """
select text, toInt32(day), toString(day)
from (select arrayJoin({texts:Array(String)}) as text, toDate32OrNull(text) as day)
where isNotNull(day)"""
_INSTANTS = """
select text, toUnixTimestamp64Micro(assumeNotNull(instant)), toString(assumeNotNull(instant))
from (select arrayJoin({texts:Array(String)}) as text, toDateTime64OrNull(text, 6, 'UTC') as instant)
where isNotNull(instant)"""
_TIME64 = "select count() from system.data_type_families where name = 'Time64'"
_JSON = """
select isNotNull(accurateCastOrNull('{}', 'JSON')) and isNull(accurateCastOrNull('{"a": 1, "a": 2}', 'JSON'))"""
_ALLOWED = "select count() from system.settings where name = 'enable_time_time64_type' and value = '0'"


def ask(client: Client) -> Capabilities:
    """Ask a server what it can hold. Raises DestinationError when it cannot be asked, or is too old."""
    ((version, zone),) = client.rows("select version(), timezone()")
    if problem := too_old(version):
        raise DestinationRefusedError(f"{client.name}: {problem}", hint="Upgrade ClickHouse.")
    return Capabilities(
        version=version,
        date32=_date32(client),
        datetime64=_datetime64(client),
        time64=_counted(client, _TIME64) and not _counted(client, _ALLOWED),
        json=_can(client, _JSON),
        embedded=client.embedded,
        utc=zone.rpartition("/")[2] in _UTC,
    )


def too_old(version: str) -> str:
    """What is wrong with a server of this version; empty for one that can be used."""
    if tuple(int(each) for each in re.findall(r"\d+", version)[:2]) >= OLDEST:
        return ""
    return f"it is version {version}, and Penstock needs {OLDEST[0]}.{OLDEST[1]} or newer"


def _date32(client: Client) -> tuple[int, int]:
    """The widest range whose ends come back as they went in."""
    held = _held(client, _DAYS, {text: _day(text) for text in (*_FIRST_DAYS, *_LAST_DAYS)})
    return min(held), max(held)


def _datetime64(client: Client) -> tuple[int, int]:
    first = {f"{text} 00:00:00.000000": _micros(text) for text in _FIRST_DAYS}
    last = {f"{text} 23:59:59.999999": _micros(text) + 86_400_000_000 - 1 for text in _LAST_DAYS}
    held = _held(client, _INSTANTS, first | last)
    return min(held), max(held)


def _held(client: Client, query: str, candidates: dict[str, int]) -> list[int]:
    answers = client.rows(query, {"texts": list(candidates)})
    held = [number for text, number, back in answers if candidates[text] == number and back == text]
    if len(held) < 2:
        raise DestinationRefusedError(
            f"{client.name} does not read dates as ClickHouse does", hint="Point the dsn to ClickHouse itself."
        )
    return held


def _day(text: str) -> int:
    return (date.fromisoformat(text) - _EPOCH.date()).days


def _micros(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _counted(client: Client, query: str) -> bool:
    ((count,),) = client.rows(query)
    return bool(count)


def _can(client: Client, query: str) -> bool:
    """Whether the server knows and allows what the query needs."""
    try:
        return _counted(client, query)
    except (DestinationRefusedError, TableError):
        return False
