"""Looking stored rows up by PostgreSQL's text of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fix_clickhouse import batch_of

from penstock.clickhouse import lookup
from penstock.clickhouse.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fix_clickhouse import Place

    from penstock.clickhouse.lookup import Stored
    from penstock.plan import Plan


def newest(
    place: Place, plan: Plan, *keys: str | tuple[str, ...], columns: Sequence[int] = (1,), below: int | None = None
) -> dict[tuple[bytes, ...], Stored]:
    identities = [tuple(each.encode() for each in ((key,) if isinstance(key, str) else key)) for key in keys]
    return lookup.newest(place.client, place.database, plan, identities, columns, below=below)


def summary(found: dict[tuple[bytes, ...], Stored]) -> dict[str, tuple[int, bool, bytes | None]]:
    return {
        key[0].decode(): (row.version, row.deleted, None if row.values[1].null else row.values[1].data)
        for key, row in found.items()
    }


def test_the_newest_row_whatever_its_version(place: Place) -> None:
    plan = place.table("id int4, note text")
    writer = Writer(place.client, place.database)
    writer.insert(batch_of(plan, ("1", "new"), ("2", "here"), ("3", "here"), version=(7 << 64) + 1))
    writer.insert(batch_of(plan, ("1", "old"), ("3", None)))
    writer.insert(batch_of(plan, ("2", "gone"), version=8 << 64, deleted=True))
    assert summary(newest(place, plan, "1", "2", "3", "4", "1")) == {
        "1": ((7 << 64) + 1, False, b"\x03new"),
        "2": (8 << 64, True, b"\x04gone"),
        "3": ((7 << 64) + 1, False, b"\x04here"),
    }


def test_the_newest_may_be_null(place: Place) -> None:
    plan = place.table("id int4, note text")
    writer = Writer(place.client, place.database)
    writer.insert(batch_of(plan, ("1", "old"), version=1))
    writer.insert(batch_of(plan, ("1", None), version=2))
    assert summary(newest(place, plan, "1")) == {"1": (2, False, None)}


def test_a_history_is_asked_for_the_newest_below_a_version(place: Place) -> None:
    plan = place.table("id int4, note text", options={"shape": "history"})
    writer = Writer(place.client, place.database)
    for version in (3, 5, 9):
        writer.insert(batch_of(plan, ("1", f"v{version}"), version=version))
    assert summary(newest(place, plan, "1", below=9)) == {"1": (5, False, b"\x02v5")}
    assert newest(place, plan, "1", below=3) == {}


def test_keys_that_print_differently_are_one_key(place: Place) -> None:
    plan = place.table("id numeric, note text")
    Writer(place.client, place.database).insert(batch_of(plan, ("1.50", "x")))
    found = newest(place, plan, "1.5", "1.500", "15")
    assert set(found) == {(b"1.5",), (b"1.500",)}


def test_negative_zero_is_zero(place: Place) -> None:
    plan = place.table("id float8, note text")
    Writer(place.client, place.database).insert(batch_of(plan, ("0", "x")))
    assert set(newest(place, plan, "-0", "0")) == {(b"-0",), (b"0",)}


def test_any_byte_in_a_key(place: Place) -> None:
    plan = place.table("id text, note text")
    names = ["", "it's", "back\\slash", "tab\tline\n", "é🐘", "{x:Int8}", "%s", "`q`"]
    Writer(place.client, place.database).insert(batch_of(plan, *((name, f"<{name}>") for name in names)))
    assert {
        key[0].decode(): row.values[1].data[1:].decode()
        for key, row in newest(place, plan, *zip(names, strict=True)).items()
    } == {name: f"<{name}>" for name in names}
    place.run(r"insert into {db}.t (id, note, _version, _is_deleted) values ('\xff\x00\x80', 'bytes', 1, 0)")
    found = lookup.newest(place.client, place.database, plan, [(b"\xff\x00\x80",)], [1])
    assert found[b"\xff\x00\x80",].values[1].data == b"\x05bytes"


def test_columns_named_as_the_query_names_its_own(place: Place) -> None:
    names = ("place", "version", "newest", "deleted", "t", "wanted", "key_0", "value_0", "texts", "found")
    plan = place.table("key_1 int4, " + ", ".join(f"{name} text" for name in names), ("key_1", "place"))
    Writer(place.client, place.database).insert(batch_of(plan, ("1", *names), version=4))
    found = newest(place, plan, ("1", "place"), columns=range(1, 11))
    assert found[b"1", b"place"].version == 4
    assert [value.data[1:].decode() for value in found[b"1", b"place"].values.values()] == list(names)


def test_columns_sent_as_another_type(place: Place) -> None:
    plan = place.table("id int4, state enum, at timestamptz", options={"types": {"at": "String"}})
    row = ("1", "it's", "2024-02-29 12:00:00+00")
    Writer(place.client, place.database).insert(batch_of(plan, row))
    values = newest(place, plan, "1", columns=(1, 2))[b"1",].values
    assert [value.data[1:].decode() for value in values.values()] == list(row[1:])


def test_identity_is_part_of_a_longer_sorting_key(place: Place) -> None:
    plan = place.table("id int4, note text, region text", full=True, options={"order_by": ["region"]})
    Writer(place.client, place.database).insert(batch_of(plan, ("1", "x", "north")))
    assert summary(newest(place, plan, "1")) == {"1": (0, False, b"\x01x")}


def test_ten_thousand_keys_in_several_statements(place: Place) -> None:
    plan = place.table("id int8, tenant uuid, note text", ("id", "tenant"))
    tenant = "c0ffee00-0000-4000-8000-000000000001"
    rows = [(str(number), tenant, f"note {number}") for number in range(0, 20_000, 2)]
    Writer(place.client, place.database).insert(batch_of(plan, *rows, version=3))
    found = newest(place, plan, *((str(number), tenant) for number in range(10_000)), columns=(2,))
    assert len(found) == 5000
    assert all(row.values[2].data[1:] == b"note " + key[0] for key, row in found.items())


def test_no_keys(place: Place) -> None:
    assert newest(place, place.table("id int4, note text")) == {}
