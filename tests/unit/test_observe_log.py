from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from penstock.lsn import Lsn
from penstock.observe.log import configure, scrub

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://penstock:s3cret@db:5432/shop?sslmode=require",
        "postgresql://penstock:s3/cr@et-s3cret@db/shop",
        "clickhouse://u:s3cret@h:8443?secure=true",
        "host=db password=s3cret user=u",
        "host=db password='s3cret with blanks' user=u",
        r"host=db password = 's3cret\'s3cret' user=u",
        "postgresql://db/shop?user=u&password=s3cret&application_name=x",
        '{"password": "s3cret and more", "user": "u"}',
        "{'password': 's3cret'}",
        "sslpassword=s3cret",
        "PASSWORD=s3cret",
    ],
)
def test_secrets_are_scrubbed(text: str) -> None:
    assert "s3cret" not in scrub(text)
    assert "***" in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        'password authentication failed for user "penstock"',
        "postgresql://penstock@db:5432/shop",
        "table public.orders has 3 columns: id, total, token",
        "https://clickhouse.com/docs: see the manual",
        'Move it to password = { env = "…" } or { file = "…" }.',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrub(text) == text


def test_lines_are_key_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    structlog.get_logger(pipe="shop").info("batch written", table="public.orders", rows=10, position=Lsn(255))
    line = capsys.readouterr().err
    assert 'level=info event="batch written"' in line
    assert "pipe=shop table=public.orders rows=10 position=0/FF" in line


def test_a_name_is_no_second_line_and_no_command_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    structlog.get_logger().info("table copied", table="a\nlevel=error\r\x1b[2J\u2028\udce9 日本🦫")
    [line] = capsys.readouterr().err.splitlines()
    assert r'table="a\nlevel=error\r\x1b[2J\u2028\xe9 日本🦫"' in line.replace("\\\\", "\\")


def test_json_lines_parse_and_hold_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    log = structlog.get_logger()
    log.info("connected", dsn="postgresql://u:s3cret@h/db", password="s3cret", nested={"token": "s3cret", "rows": 3})
    try:
        raise ValueError("refused: password=s3cret")
    except ValueError:
        log.exception("it broke")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["connected", "it broke"]
    assert lines[0]["nested"] == {"token": "***", "rows": 3}
    assert "ValueError" in lines[1]["exception"]
    assert "s3cret" not in json.dumps(lines)


def test_libraries_are_quiet_and_take_the_same_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json", level="info")
    library = logging.getLogger("clickhouse_connect.driver")
    library.info("chatter")
    library.warning("retrying %s", "http://u:s3cret@h")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["library"] == "clickhouse_connect.driver"
    assert "s3cret" not in line


def test_level_is_kept_and_configuring_again_does_not_double_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure(level="info")
    configure(level="warning")
    structlog.get_logger().info("unheard")
    structlog.get_logger().warning("heard")
    assert capsys.readouterr().err.count("\n") == 1
