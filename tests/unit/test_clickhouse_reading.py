"""What a user's query may be."""

from __future__ import annotations

import pytest

from penstock.clickhouse.reading import one_query
from penstock.errors import ConfigError


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("select 1", "select 1"),
        ("  select 1 ;; \n", "  select 1"),
        ("select 'a;b' -- it's; here", "select 'a;b'"),
        ("-- why\nselect 1 /* ; */ ;", "-- why\nselect 1"),
        ("(select 1) union all (select 2)", "(select 1) union all (select 2)"),
        ("WITH 1 as x SELECT x", "WITH 1 as x SELECT x"),
        ("select 'into outfile', `format X` from t", "select 'into outfile', `format X` from t"),
        (r"select 'it\'s; into outfile'", r"select 'it\'s; into outfile'"),
        ("select $a$ ; into outfile $a$", "select $a$ ; into outfile $a$"),
        ("select 'it''s;'", "select 'it''s;'"),
        ("select format from t order by format desc", "select format from t order by format desc"),
        ("select ‘; into outfile’ -- ’", "select ‘; into outfile’"),
        ("select 1 as into, 2 as outfile", "select 1 as into, 2 as outfile"),
        ("show tables", "show tables"),
        ("explain select 1", "explain select 1"),
    ],
)
def test_what_is_sent(sql: str, sent: str) -> None:
    assert one_query(sql) == sent


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("", "is empty"),
        (" ; ", "is empty"),
        ("-- nothing", "is empty"),
        ("insert into t values (1)", "begins with INSERT"),
        ("/* select */ kill query where 1", "begins with KILL"),
        ("system shutdown", "begins with SYSTEM"),
        ("'select'", "begins with '"),
        ("!", "begins with !"),
        ("select 1; drop table t", "more than one statement"),
        ("select 1 into  outfile 'x'", "INTO OUTFILE"),
        ("select 1 INTO\nOUTFILE 'x' FORMAT CSV", "INTO OUTFILE"),
        ("select 1 into/**/outfile 'x'", "INTO OUTFILE"),
        ("select 1 into -- a\n outfile 'x'", "INTO OUTFILE"),
        ("select 'a'into outfile 'x'", "INTO OUTFILE"),
        ("select ‘'’ into outfile 'x'", "INTO OUTFILE"),
        ("select “'” into outfile 'x'", "INTO OUTFILE"),
        *(
            (f"select 1 into{blank}outfile 'x'", "INTO OUTFILE")
            for blank in "\u00a0\u180e\u200b\u200d\u2060\u3000\ufeff"
        ),
        ("select 1 format JSONEachRow;", "FORMAT"),
    ],
)
def test_what_is_refused(sql: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        one_query(sql)
    assert caught.value.hint
