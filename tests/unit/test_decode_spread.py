"""Cells become Native columns; what are none is refused by both, at whatever place they are damaged."""

from __future__ import annotations

import importlib
import random
from typing import TYPE_CHECKING

import pytest
from tests.faker import VALUES
from tests.fix_frames import IMPLEMENTATIONS
from tests.plans import plan_of

from penstock.errors import BadDataError

if TYPE_CHECKING:
    from types import ModuleType

    from penstock.batch import EncodedColumn

MODULES = [importlib.import_module(name) for name in IMPLEMENTATIONS]
TEXTS = {
    "int4[]": ["{1,NULL,-3}", "{}", "{7}"],
    "text[][]": ['{{a,"b c"},{NULL,d}}', "{}"],
    "hstore": ['"a"=>"1", "b"=>NULL', ""],
    "hstore[]": ['{"\\"a\\"=>\\"1\\"",""}'],
    "vector": ["[1,2.5,-3]"],
    "vector[][]": ['{{"[1]","[2,3]"}}'],
    "numeric(12,2)[]": ["{1.50,NULL}"],
}


def column_of(module: ModuleType, type_: str, texts: list[str]) -> EncodedColumn:
    copy = module.CopyDecoder(plan_of(f"id int4, v {type_}!"), 1000, 1 << 20, 1)
    for number, text in enumerate(texts):
        copy.receive(f"{number}\t{text}\n".replace("\\", "\\\\").encode())
    copy.finish()
    column: EncodedColumn = copy.take().columns[1]
    return column


def said(column: EncodedColumn, cells: bytes) -> bytes | str:
    assert column.spread
    try:
        return column.spread(cells)
    except BadDataError as error:
        return error.message


@pytest.mark.parametrize("type_", TEXTS)
def test_damaged_cells(type_: str) -> None:
    first, *others = [column_of(module, type_, TEXTS[type_]) for module in MODULES]
    cells = first.values
    assert isinstance(said(first, cells), bytes)
    refused = 0
    for place in range(len(cells)):
        damaged = [cells[:place], cells[place + 1 :], cells[:place] + cells[place + 1 :]]
        damaged += [cells[:place] + bytes([byte]) + cells[place + 1 :] for byte in (0, 1, 2, 5, 0x7F, 0x80, 0xFF)]
        for each in damaged:
            found = said(first, each)
            refused += isinstance(found, str)
            for other in others:
                assert said(other, each) == found
    assert refused > len(cells)


@pytest.mark.parametrize("type_", ["int4[]", "text[][]", "hstore", "vector", "bytea[]"])
def test_both_make_the_same_columns(type_: str) -> None:
    rng = random.Random(type_)
    texts = [VALUES[type_](rng).replace("\t", "").replace("\n", "").replace("\r", "") for _ in range(200)]
    first, *others = [column_of(module, type_, texts) for module in MODULES]
    for other in others:
        assert other.values == first.values
        assert said(other, other.values) == said(first, first.values)
