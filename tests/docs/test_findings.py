"""Every finding has a test that provokes it: its name stands in one."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.scripts import ROOT

from penstock.postgres import standby_checks

if TYPE_CHECKING:
    from collections.abc import Iterator

TREES = {path: ast.parse(path.read_text()) for path in sorted((ROOT / "src" / "penstock").rglob("*.py"))}
TESTS = [path for folder in ("integration", "acceptance") for path in (ROOT / "tests" / folder).glob("test_*.py")]


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in found if isinstance(call.func, ast.Name) and call.func.id == name]


def names_in(tree: ast.AST) -> Iterator[str]:
    """What ``Finding`` is given first: a name, or what the function around it was given as one."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        parameters = [each.arg for each in function.args.args]
        for call in calls(function, "Finding"):
            match call.args[0]:
                case ast.Constant(value=str(name)):
                    yield name
                case ast.Name(id=parameter) if parameter in parameters:
                    given = (each.args[parameters.index(parameter)] for each in calls(tree, function.name))
                    yield from (str(each.value) for each in given if isinstance(each, ast.Constant))
                case ast.Attribute(attr="setting"):
                    yield from (need.setting for need in standby_checks._NEEDS)
                case other:
                    assert ast.unparse(other) == "question.__name__", "a name that this test cannot tell"


def test_every_finding_has_a_test() -> None:
    names = {name for tree in TREES.values() for name in names_in(tree)}
    assert len(names) > 45
    assert {"wal_level", "wal_senders", "primary_slot_name", "destination_rights", "targets"} <= names
    proved = {
        node.value
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert sorted(names - proved) == [], "make the bad situation on a real server, and apply the fix as printed"
