"""PostGIS's own values, with PostGIS as the judge of what arrives: its text, and its bytes when the text is given back to it."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest
from tests.fix_pipe import Case
from tests.fix_postgres import Database
from tests.servers.postgres import PostgresServer
from tests.servers.postgres_extensions import postgis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.clickhouse import ClickHouseServer

EDGES = (
    "0",
    "-0",
    "1",
    "-1.5",
    "0.1",
    "0.30000000000000004",
    "1e300",
    "5e-324",
    "1e15",
    "1e16",
    "123456789012345678",
    "-179.99999999999997",
)
FIXED = [
    "POINT EMPTY", "POINT Z EMPTY", "LINESTRING EMPTY", "POLYGON EMPTY", "MULTIPOINT EMPTY", "GEOMETRYCOLLECTION EMPTY", "TIN EMPTY",
    "SRID=4326;POINT EMPTY", "SRID=999999;POINT(1 2)", "GEOMETRYCOLLECTION(POINT EMPTY,LINESTRING EMPTY)", "MULTIPOINT(1 2,EMPTY)",
    "MULTIPOLYGON(((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1)),((5 5,6 5,6 6,5 5)))", "CIRCULARSTRING(0 0,1 1,2 0)",
    "COMPOUNDCURVE(CIRCULARSTRING(0 0,1 1,1 0),(1 0,0 1))",
    "CURVEPOLYGON(COMPOUNDCURVE(CIRCULARSTRING(0 0,2 0,2 1,2 3,4 3),(4 3,4 5,1 4,0 0)))",
    "MULTICURVE((0 0,5 5),CIRCULARSTRING(4 0,4 4,8 4))",
    "MULTISURFACE(CURVEPOLYGON(CIRCULARSTRING(0 0,4 0,4 4,0 4,0 0)),((10 10,14 12,11 10,10 10)))",
    "POLYHEDRALSURFACE Z (((0 0 0,0 0 1,0 1 1,0 1 0,0 0 0)),((0 0 0,0 1 0,1 1 0,1 0 0,0 0 0)))", "TIN Z (((0 0 0,0 0 1,0 1 0,0 0 0)))",
    "TRIANGLE((0 0,0 9,9 0,0 0))", "GEOMETRYCOLLECTION M (POINT M (1 2 3),GEOMETRYCOLLECTION M (LINESTRING M (1 2 3,4 5 6)))",
    "SRID=3857;MULTILINESTRING ZM ((1 2 3 4,5 6 7 8),(0 0 0 0,1 1 1 1))",
]  # fmt: skip


def shapes(rng: random.Random) -> Iterator[str]:
    """Points, lines, polygons and collections of them, of every number of dimensions, with coordinates of every size."""
    for _ in range(60):
        tag, width = rng.choice((("", 2), (" Z", 3), (" M", 3), (" ZM", 4)))

        def point(width: int = width) -> str:
            return " ".join(
                rng.choice(EDGES) if rng.random() < 0.5 else repr(rng.uniform(-180, 180)) for _ in range(width)
            )

        ring = ",".join((start := point(), point(), point(), start))
        bodies = {
            "POINT": point(),
            "LINESTRING": f"{point()},{point()}",
            "POLYGON": f"({ring})",
            "MULTIPOINT": f"({point()}),({point()})",
            "MULTILINESTRING": f"({point()},{point()}),({ring})",
            "MULTIPOLYGON": f"(({ring})),(({ring}))",
            "GEOMETRYCOLLECTION": f"POINT{tag} ({point()}),POLYGON{tag} (({ring}))",
        }
        name = rng.choice(list(bodies))
        yield f"{rng.choice(('', 'SRID=4326;'))}{name}{tag} ({bodies[name]})"


def exact(text: str) -> str:
    """With every number in one form."""
    return re.sub(r"-?\d[\d.]*(?:e[+-]?\d+)?", lambda found: repr(float(found[0]) + 0.0), text)


@pytest.mark.slow
def test_shapes_arrive_as_postgis_writes_them(clickhouse_server: ClickHouseServer, tmp_path: Path) -> None:
    build = postgis()
    texts = [*FIXED, *shapes(random.Random(5))]
    clickhouse_server.query("drop database if exists shop sync")
    with PostgresServer(build.version, build=build) as server:
        database = Database(server, "postgres")
        database.execute(
            "create extension postgis",
            "create table staged (id int generated always as identity, g geometry)",
            "create table t (id int primary key, touched int, g geometry, list geometry[], world geography, typed geometry(PointZ, 4326))"
            " with (toast_tuple_target = 128)",
        )
        with database.connect() as connection:
            connection.cursor().executemany("insert into staged (g) values (%s)", [(text,) for text in texts])
        values = "array[g, null, g], case when st_srid(g) = 4326 and st_isvalid(st_force2d(g)) then st_force2d(g)::geography end"
        fill = "insert into t select id + {}, 0, g, {}, st_setsrid(st_makepoint(id, -id, 0.1), 4326) from staged"
        change = "update t set g = s.g, list = array[s.g, null, s.g] from staged s where t.id = s.id + 3000"
        shifted = "insert into t select (id + 5) % (select count(*) from staged) + 3001, 0, g, {} from staged"
        case = Case(tmp_path, database, clickhouse_server.dsn(), clickhouse_server)
        case.define(tables='include = ["public.t"]')
        database.execute(fill.format(0, values), fill.format(1000, values))
        case.once()
        database.execute(
            fill.format(2000, values),
            shifted.format(f"{values}, st_setsrid(st_makepoint(id, -id, 0.1), 4326)"),
            change,
            "update t set touched = 1 where id between 1001 and 1999",
        )
        case.once()
        shown = {
            int(row[0] or 0): row[1:]
            for row in case.query("select id, g, toString(list), world, typed from t_current order by id")
        }
        written = "(case when st_srid({0}) <> 0 then 'SRID=' || st_srid({0}) || ';' else '' end || st_astext({0}, 17))"
        query = f"select id, {written.format('g')}, {written.format('world::geometry')}, {written.format('typed')} from t order by id"
        theirs = database.fetch(query)
        assert len(theirs) == len(shown) == 4 * len(texts)
        for number, whole, world, typed in theirs:
            got = shown[number]
            assert exact(got[0] or "") == exact(whole)
            assert got[1] == f"['{got[0]}',NULL,'{got[0]}']"
            assert (None if got[2] is None else exact(got[2])) == (None if world is None else exact(world))
            assert exact(got[3] or "") == exact(typed)
        with database.connect() as connection:
            connection.execute("create temporary table given (id int, g text)")
            connection.cursor().executemany(
                "insert into given values (%s, %s)", [(number, row[0]) for number, row in shown.items()]
            )
            lost = connection.execute(
                "select t.id, given.g from t join given using (id) where st_asewkb(t.g) <> st_asewkb(st_geomfromewkt(given.g))"
            ).fetchall()
        assert lost == []
