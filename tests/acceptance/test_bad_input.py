"""What goes wrong is said plainly: what, where, what to do; and nothing is lost or half-done."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess

    from tests.fix_pipe import Case

pytestmark = pytest.mark.pg("== 15")
TABLE = ("create table t (id int primary key, v text)", "insert into t select i, 'v' from generate_series(1, 100) i")


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Exit code, and every word in the message; with a next step, without a traceback."""
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "Traceback" not in text
    for word in words:
        assert re.search(word, text), f"{word!r} is not in:\n{text}"


def test_configuration(embedded: Case) -> None:
    embedded.define(settings='flush_intervall = "1s"')
    refused(
        embedded.penstock("run", str(embedded.file)),
        2,
        "settings.flush_intervall",
        "did you mean flush_interval",
        "next:",
    )
    refused(embedded.penstock("run", "nowhere.toml"), 2, "there is no file nowhere.toml", "next:")
    embedded.file.write_text("[pipe\n")
    refused(embedded.penstock("check", str(embedded.file)), 2, "is not TOML", "line 1")
    done = embedded.penstock("run", "nowhere.toml", "--json")
    assert json.loads(done.stdout)["kind"] == "Config"
    (embedded.home / "shop.lock").mkdir(parents=True)
    embedded.define()
    refused(embedded.penstock("run", str(embedded.file)), 1, "shop.lock cannot be opened", "PENSTOCK_HOME", "next:")
    refused(embedded.penstock("verify", "t"), 2, "not built yet")
    refused(embedded.penstock("rum"), 2, "No such command")


def test_a_dsn_that_leads_nowhere(embedded: Case) -> None:
    embedded.source_dsn = "postgresql://penstock:not-shown@127.0.0.1:15999/shop"
    embedded.define()
    done = embedded.penstock("run", str(embedded.file))
    refused(done, 1, "127.0.0.1:15999", "refused", "next:")
    assert "not-shown" not in done.stdout + done.stderr


def test_errors_are_said_in_the_readers_language(embedded: Case) -> None:
    """Of the source by every command, of the destination by check; the log stays English."""
    embedded.source_dsn = "postgresql://penstock@127.0.0.1:15999/shop"
    embedded.define()
    embedded.environment["LC_ALL"] = "ko_KR.UTF-8"
    refused(embedded.penstock("run", str(embedded.file)), 1, "오류: 127.0.0.1:15999/shop에 연결 중: ", "다음: 그곳에서")
    done = embedded.penstock("run", str(embedded.file), "--lang", "ja", "--json")
    assert json.loads(done.stdout)["hint"].startswith("そこでは何も待ち受けていません")
    assert not re.search(r"[^\x00-\x7f…]", done.stderr)
    done = embedded.penstock("setup", str(embedded.file), "--lang", "zh")
    refused(done, 0, "手动  访问源 127.0.0.1:15999/shop: 尚无法查看", "那里没有服务在监听", "其余需由您完成")
    embedded.environment["JUMP_PASSWORD"] = "not-shown"
    embedded.define(source='ssh = { host = "127.0.0.1", port = 15999, password = { env = "JUMP_PASSWORD" } }')
    done = embedded.penstock("setup", str(embedded.file))
    refused(done, 0, "점프 서버 127.0.0.1:15999이\\(가\\) 연결을 거부합니다", "ssh.port를 확인하고")
    embedded.destination = "clickhouse://127.0.0.1:15999"
    embedded.define()
    done = embedded.penstock("check", str(embedded.file), "--lang", "ja")
    refused(
        done, 3, "127.0.0.1:15999/shop への接続: ", "Penstock が再試行します", "接続が拒否されました", "自動的に再試行"
    )


def test_a_wrong_password(embedded: Case) -> None:
    embedded.environment["SHOP_PASSWORD"] = "not-shown"
    embedded.define(source='password = { env = "SHOP_PASSWORD" }')
    done = embedded.penstock("check", str(embedded.file))
    refused(done, 3, "password")
    assert "not-shown" not in done.stdout + done.stderr
    del embedded.environment["SHOP_PASSWORD"]
    refused(embedded.penstock("run", str(embedded.file)), 2, "SHOP_PASSWORD is not set")


def test_a_table_that_is_not_there(embedded: Case) -> None:
    embedded.database.execute(*TABLE, "create table orders (id int primary key)")
    embedded.define(tables='include = ["public.ordres"]')
    refused(embedded.penstock("run", str(embedded.file)), 2, "public.ordres", "Did you mean public.orders")
    embedded.define(tables='include = ["shop.*"]')
    refused(embedded.penstock("run", str(embedded.file)), 2, r"no table of the source matches", "public.t")
    embedded.define(options='[tables.options."public.t"]\nexclude_columns = ["w"]')
    refused(embedded.penstock("run", str(embedded.file)), 2, 'names column "w"', "id, v")


def test_names_that_clash(embedded: Case) -> None:
    embedded.database.execute(*TABLE, "create schema other", "create table other.t (id int primary key)")
    embedded.define(tables='include = ["public.*", "other.*"]')
    refused(embedded.penstock("run", str(embedded.file)), 2, "other.t and public.t", "{schema}_{table}")
    embedded.database.execute("create table odd (id int primary key, _version int)")
    embedded.define(tables='include = ["public.odd"]')
    refused(embedded.penstock("run", str(embedded.file)), 2, "_version", "metadata_prefix")
    embedded.define(tables='include = ["public.odd"]', destination='metadata_prefix = "_peerdb_"')
    embedded.once()
    assert embedded.query("select _version from odd_current") == []


def test_missing_privileges_come_all_at_once(embedded: Case) -> None:
    embedded.database.execute(
        *TABLE,
        "create table u (id int primary key)",
        "drop role if exists weak",
        "create role weak login password 'weak-secret'",
    )
    try:
        embedded.source_dsn = re.sub(r"//[^@]*@", "//weak:weak-secret@", embedded.database.dsn)
        embedded.source_dsn = re.sub(r"user=\S+", "user=weak", embedded.source_dsn)
        embedded.source_dsn = re.sub(r"password=\S+", "password=weak-secret", embedded.source_dsn)
        embedded.define()
        done = embedded.penstock("check", str(embedded.file))
        refused(done, 3, "BLOCKING", r"(?i)grant select", r"(?i)replication", "weak")
        assert len(re.findall(r"(?i)grant select", done.stdout)) >= 1
        assert "weak-secret" not in done.stdout
        found = json.loads(embedded.penstock("check", str(embedded.file), "--json").stdout)
        assert {"check", "severity", "subject", "problem", "why", "fix"} == set(found[0])
    finally:
        embedded.database.execute("drop role weak")


def test_a_slot_that_is_gone_or_moved(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define()
    embedded.once()
    embedded.database.execute(
        "insert into t values (1000, 'x')",
        "select pg_replication_slot_advance('penstock_shop', pg_current_wal_insert_lsn())",
    )
    refused(
        embedded.penstock("run", str(embedded.file), "--once"), 1, "somebody else has read", "(?i)copy the tables again"
    )
    embedded.database.execute("select pg_drop_replication_slot('penstock_shop')")
    refused(
        embedded.penstock("run", str(embedded.file), "--once"),
        1,
        '"penstock_shop" is gone',
        "(?i)copy the tables again",
    )


def test_a_slot_of_another_pipe(embedded: Case) -> None:
    embedded.database.execute(*TABLE, "select pg_create_logical_replication_slot('penstock_shop', 'pgoutput')")
    embedded.define()
    refused(embedded.penstock("run", str(embedded.file), "--once"), 1, "exists already", "pg_drop_replication_slot")


def test_a_publication_without_the_table(embedded: Case) -> None:
    embedded.database.execute(*TABLE, "create table u (id int primary key)", "create publication mine for table u")
    embedded.define(source='publication = "mine"')
    refused(embedded.penstock("run", str(embedded.file), "--once"), 1, '"mine"', r"public\.t", "(?i)alter publication")
    embedded.define(source='publication = "yours"')
    refused(embedded.penstock("run", str(embedded.file), "--once"), 1, '"yours" does not exist')


def test_a_changed_table_is_set_aside_and_the_others_go_on(embedded: Case) -> None:
    embedded.database.execute(*TABLE, "create table u (id int primary key)")
    embedded.define()
    embedded.once()
    embedded.database.execute(
        "alter table t alter v type int using 5", "insert into t values (1000, 1)", "insert into u values (1)"
    )
    done = embedded.penstock("run", str(embedded.file), "--once")
    refused(done, 1)
    embedded.assert_equal("public.u")
    again = embedded.penstock("run", str(embedded.file), "--once", "--json")
    tables = {table["full_name"]: table for table in json.loads(again.stdout)["tables"]}
    assert tables["public.t"]["state"] == "failed"
    assert 'column "v" has another type' in tables["public.t"]["last_error"]
    assert tables["public.u"]["state"] == "streaming"


def test_a_table_is_copied_again_and_a_pipe_removed(case: Case) -> None:
    case.database.execute(*TABLE, "create table u (id int primary key)")
    case.define()
    case.once()
    case.database.execute("alter table t alter v type int using 5", "insert into t values (1000, 1)")
    case.once(expect=1)
    refused(case.penstock("resync", str(case.file), "public.tt"), 2, "no table public.tt", "Did you mean public.t")
    assert case.penstock("resync", str(case.file), "public.t").returncode == 0
    case.database.execute("update t set v = 6 where id < 50", "delete from t where id = 99")
    case.once()
    case.assert_equal("public.t", "public.u")
    case.database.execute("delete from t where id > 90")
    assert case.penstock("drop", str(case.file)).returncode == 0
    left = "select (select count(*) from pg_replication_slots where slot_name = 'penstock_shop'), count(*) from pg_publication"
    assert case.database.fetch(left) == [(0, 0)]
    refused(case.penstock("run", str(case.file), "--once"), 1, "shop.t holds rows already")
    dropped = json.loads(case.penstock("drop", str(case.file), "--tables", "--json").stdout)["dropped"]
    assert "table shop.u" in dropped  # which was empty
    assert "table shop.t" not in dropped  # for all that is known it is another pipe's


def test_a_table_of_somebody_elses_outlives_the_pipe(served: Case) -> None:
    """It only had the name that a table of the pipe's would have had."""
    assert served.server
    served.server.query("create database shop")
    served.server.query("create table shop.t (mine String) engine = MergeTree order by mine")
    served.server.query("insert into shop.t values ('kept')")
    served.database.execute(*TABLE, "create table u (id int primary key)")
    served.define()
    served.once(expect=1)
    dropped = json.loads(served.penstock("drop", str(served.file), "--tables", "--json").stdout)["dropped"]
    assert "table shop.u" in dropped
    assert "table shop.t" not in dropped
    assert served.query("select mine from t") == [["kept"]]


def test_a_pipe_that_runs_from_elsewhere_is_not_dropped(served: Case) -> None:
    """It is at rest, and its state is not here: slot and publication may be of another machine's pipe of the name."""
    served.database.execute(*TABLE)
    served.define()
    served.once()
    here = "select (select count(*) from pg_replication_slots where slot_name = 'penstock_shop'), count(*) from pg_publication"
    served.environment = {"PENSTOCK_HOME": str(served.folder / "elsewhere")}
    done = served.penstock("drop", str(served.file), "--tables")
    refused(
        done, 1, 'no state of the pipe "shop"', '"penstock_shop"', "publication", "PENSTOCK_HOME", "--without-state"
    )
    assert served.database.fetch(here) == [(1, 1)]
    assert served.penstock("drop", str(served.file), "--without-state").returncode == 0
    assert served.database.fetch(here) == [(0, 0)]
    assert served.penstock("drop", str(served.file)).returncode == 0  # there is nothing left that could be another's
    served.environment = {}
    assert served.penstock("drop", str(served.file), "--tables").returncode == 0


def test_a_destination_table_that_does_not_fit(case: Case) -> None:
    case.database.execute(*TABLE, "create table u (id int primary key)", "insert into u values (7)")
    case.define(tables='include = ["public.u"]')
    case.once()
    case.database.execute("create table wide (id bigint primary key)")
    case.define(
        tables='include = ["public.wide"]',
        options='[tables.options."public.wide"]\ntarget = "u"',
    )
    done = case.penstock("run", str(case.file), "--once")
    refused(done, 1, "Int32")


def test_values_that_do_not_fit(embedded: Case) -> None:
    embedded.database.execute(
        "create table v (id int primary key, n numeric(10, 2), m numeric not null, d date, at timestamptz)",
        "insert into v values (1, 'NaN', 1e50, 'infinity', '-infinity'), (2, 1.25, 2, '2024-02-29', '2024-02-29 12:00+00')",
    )
    embedded.define()
    done = embedded.once()
    embedded.database.execute(
        "insert into v select id + 10, n, m, d, at from v", "create table k (at timestamptz primary key)"
    )
    embedded.once()
    rows = embedded.query("select id, n, m from v_current order by id")
    assert rows == [["1", None, None], ["2", "1.25", "2"], ["11", None, None], ["12", "1.25", "2"]]
    same = embedded.query("select count(), uniq(d, at) from v_current where id in (1, 11)")
    assert same == [["2", "1"]]
    assert done.returncode == 0
    embedded.define(settings='on_unfit = "fail"', tables='include = ["public.w"]')
    embedded.database.execute(
        "create table w (id int primary key, n numeric(10, 2))", "insert into w values (1, 'NaN')"
    )
    refused(embedded.penstock("run", str(embedded.file), "--once"), 1)


def test_values_that_were_read_again_count_and_fail_like_others(embedded: Case) -> None:
    embedded.database.execute(
        "create table w (id int primary key, n numeric, k int)",
        "alter table w alter n set storage external",
        "insert into w values (1, (repeat('7', 3000) || '.' || repeat('3', 3000))::numeric, 0), (2, 1.5, 0)",
    )
    options = (
        '[tables.options."public.w"]\nshape = "null"'  # nothing is stored: what an update leaves out is read again
    )
    embedded.define(options=options)
    embedded.once()
    embedded.database.execute("update w set k = k + 1", "update w set k = 5 where id = 2")
    done = embedded.penstock("run", str(embedded.file), "--once", "--json")
    (table,) = json.loads(done.stdout)["tables"]
    assert table["counters"]["unchanged values from the source"] == 1
    assert table["counters"]["unfit n: too many digits"] == 2  # in the copy, and read again
    embedded.define(options=options, settings='on_unfit = "fail"')
    embedded.database.execute("update w set k = k + 1 where id = 2")
    embedded.once()
    embedded.database.execute("update w set k = k + 1 where id = 1")
    done = embedded.penstock("run", str(embedded.file), "--once", "--json")
    (table,) = json.loads(done.stdout)["tables"]
    assert done.returncode == 1
    assert table["state"] == "failed"
    assert 'column "n" of public.w' in table["last_error"]
    assert "too many digits" in table["last_error"]
    assert "777" not in done.stdout + done.stderr


def test_wal_level_and_check(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.define()
    done = embedded.penstock("check", str(embedded.file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_clickhouse_that_is_down(embedded: Case) -> None:
    embedded.database.execute(*TABLE)
    embedded.destination = "clickhouse://default@127.0.0.1:15998"
    embedded.define()
    refused(embedded.penstock("run", str(embedded.file), "--once"), 1, "127.0.0.1:15998", "next:")
    assert embedded.database.fetch("select count(*) from pg_replication_slots where slot_name = 'penstock_shop'") == [
        (0,)
    ]
