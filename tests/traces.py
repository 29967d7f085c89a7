"""Everything a decoder says about a stream or a copy, in a form in which two decoders can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.native_block import rows_of

from penstock.batch import Batch, Relation
from penstock.errors import BadDataError, FrameError, UnfitKeyError, UnfitValueError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from penstock.plan import Plan

Trace = list[Any]


def of_stream(
    module: ModuleType,
    plans: dict[int, tuple[Plan, bool]],
    chunks: Sequence[bytes],
    limits: tuple[int, int],
    *,
    take_each: int = 0,
    since: int = 0,
) -> Trace:
    """``plans``: by relation, the plan and whether old tuples are whole. Rows are taken after every ``take_each`` chunks."""
    stream = module.StreamDecoder(*limits, (0,))
    seen: Trace = []
    tables = sorted({plan.table.oid for plan, _ in plans.values()})
    try:
        for number, chunk in enumerate(chunks, start=1):
            stream.receive(chunk)
            while (item := stream.next_item()) is not None:
                seen.append(_checked(item))
                if isinstance(item, Relation) and item.oid in plans:
                    plan, full = plans[item.oid]
                    source = plan.source_of(tuple(column.name for column in item.columns))
                    stream.bind(item.oid, plan, source, full, since)
            seen.append((dict(stream.pending), stream.position, stream.received, stream.committed_at))
            seen.append((stream.changes, stream.transactions, stream.reply_requested))
            if take_each and number % take_each == 0:
                seen.extend(_checked(stream.take(oid)) for oid in tables)
    except FrameError as error:
        seen.append(f"FrameError: {error.message} {error.hint}")
    else:
        seen.extend(_checked(stream.take(oid)) for oid in tables)
    return seen


def of_copy(module: ModuleType, plan: Plan, chunks: Sequence[bytes], limits: tuple[int, int]) -> Trace:
    copy = module.CopyDecoder(plan, *limits, 7)
    seen: Trace = []
    try:
        for chunk in chunks:
            copy.receive(chunk)
            seen.append(bool(copy.full))
            if copy.full:
                seen.append(_checked(copy.take()))
        copy.finish()
    except (FrameError, BadDataError, UnfitKeyError, UnfitValueError) as error:
        seen.append(f"{type(error).__name__}: {error.message} {error.hint}")
    seen.append(_checked(copy.take()))
    return seen


def _checked(item: Any) -> Any:
    """A batch must be a block that can be read, with as many rows as it says, and holes where placeholders stand."""
    if isinstance(item, Batch):
        assert len(rows_of(item)) == item.rows > 0
        for hole in item.holes:
            for index, offset in zip(hole.columns, hole.offsets, strict=True):
                width = item.plan.columns[index].codec.width or 1
                assert item.columns[index].values[offset : offset + width] == bytes(width)
    return item
