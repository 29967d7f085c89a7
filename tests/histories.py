"""Tables that are kept as histories, and what is certain of them: a trigger in the source writes down what is done to each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fix_pipe import Case

SCHEMA = "past"
TABLES = ("h0", "h1")
OPTIONS = "\n".join(f'[tables.options."{SCHEMA}.{name}"]\nshape = "history"' for name in TABLES)
FIXED = ("id", "part", "v", "m", "big")  # columns that stay as they are
SET_BIG = "m = m + 1, big = repeat('b' || m + 1, 1500)"
AUDITED = (
    f"create schema {SCHEMA}",
    "create schema audit",
    "create table audit.done (s bigserial, name text, op text, id int, v bigint)",
    "create sequence audit.v",
    """create function audit.number() returns trigger language plpgsql as $$
       begin
         new.v := nextval('audit.v');
         return new;
       end $$""",
    """create function audit.note() returns trigger language plpgsql as $$
       begin
         if tg_op = 'TRUNCATE' then
           insert into audit.done (name, op) values (tg_table_name, 'truncate');
           return null;
         end if;
         if tg_op = 'DELETE' or (tg_op = 'UPDATE' and new.id <> old.id) then
           insert into audit.done (name, op, id) values (tg_table_name, 'delete', old.id);
         end if;
         if tg_op <> 'DELETE' then
           insert into audit.done (name, op, id, v) values (tg_table_name, lower(tg_op), new.id, new.v);
         end if;
         return null;
       end $$""",
    *(
        statement
        for name in TABLES
        for statement in (
            f"""create table {SCHEMA}.{name} (id int primary key, part int not null, v bigint, m int default 0,
                big text default repeat('b0', 1500), c0 text)""",
            f"alter table {SCHEMA}.{name} alter big set storage external",
            f"create trigger number before insert or update on {SCHEMA}.{name} for each row execute function audit.number()",
            f"create trigger note after insert or update or delete on {SCHEMA}.{name} for each row execute function audit.note()",
            f"create trigger note_all after truncate on {SCHEMA}.{name} execute function audit.note()",
        )
    ),
)
CLEAN = (f"drop schema if exists {SCHEMA} cascade", "drop schema if exists audit cascade")

Event = tuple[str, int]
"""What was done, and the number that the row has since."""


def differences(case: Case) -> list[str]:
    """What a history lacks, or has twice, or has wrong; empty when each is exactly what happened since its copy."""
    found = []
    for name in TABLES:
        try:
            found += [f"{name}: {text}" for text in _wrong(case, name)]
        except Exception as error:  # it is not there yet
            found.append(f"{name}: {type(error).__name__}: {error}"[:500])
    return found


def _wrong(case: Case, name: str) -> list[str]:
    done = case.database.fetch("select id, op, v from audit.done where name = %s order by s", name)
    rows = case.query(
        f"select if(_operation = 'truncate', null, id), _operation, v from {SCHEMA}_{name} final order by _version"
    )
    kept = [
        (None if id_ in (None, r"\N") else int(id_), operation, 0 if operation in ("delete", "truncate") else int(v))
        for id_, operation, v in rows
    ]
    happened, told = _by_key([(id_, op, v or 0) for id_, op, v in done]), _by_key(kept)
    found = [
        f"key {key}: {told.get(key)} of {happened.get(key)}"
        for key in sorted(happened.keys() | told.keys())
        if not _is_end(told.get(key, []), happened.get(key, []))
    ]
    torn = case.query(
        f"select id, m from {SCHEMA}_{name} final where v > 0 and big != repeat(concat('b', toString(m)), 1500)"
    )
    return [*found[:5], *(f"key {each} has another version's text" for each in torn[:5])]


def _by_key(rows: list[tuple[Any, str, int]]) -> dict[int, list[Event]]:
    """Each key's events in order; a TRUNCATE is one of every key that was there before."""
    events: dict[int, list[Event]] = {}
    for key, operation, number in rows:
        if operation == "truncate":
            for each in events.values():
                if each[-1][0] not in ("delete", "truncate"):
                    each.append(("truncate", 0))
        else:
            events.setdefault(key, []).append((operation, number))
    return events


def _is_end(told: list[Event], happened: list[Event]) -> bool:
    """Whether a key's events are the last of those that happened, behind what its copy shows of those before."""
    copied = told[0][1] if told and told[0][0] == "copy" else None
    since = told[1:] if copied is not None else told
    before = happened[: len(happened) - len(since)]
    was_there = bool(before) and before[-1][0] not in ("delete", "truncate")
    if copied is None:
        return happened[len(before) :] == since and not was_there
    return happened[len(before) :] == since and was_there and before[-1][1] == copied
