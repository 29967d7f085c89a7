"""Bytes in, items out: pgoutput frames and COPY text become Native blocks. No socket, no clock.

Two implementations of the same classes: ``reference``, plain Python, says what is meant; ``_native``, compiled, is fast.
``PENSTOCK_DECODER=python|native`` picks one; without it the compiled one is taken where it is there.

The contract of both:

``StreamDecoder(max_rows, max_bytes, starts)`` (``starts``: the commit LSNs at which the epochs after the first begin) reads frames: each
a 4-byte big-endian length and the payload of one CopyData message of a walsender: XLogData ('w') or a keep-alive ('k')
(PostgreSQL manual, Streaming Replication Protocol and Logical Replication Message Formats).

* ``bind(relation_oid, plan, source, old_is_full, since=0)``: rows of this relation go into ``plan``; ``source[i]`` is the index in
  ``plan.columns`` of the tuple's column i, or -1. Several relations (the leaves of one table) may share a plan.
  ``unbind(relation_oid)`` skips its rows. Neither touches rows that are already decoded: the rows of another plan of the table come
  out as a Batch before the first row of the new one. A binding ends with the relation's next Relation message. ValueError for a
  relation that was not announced with as many columns. Changes of transactions below the version ``since`` (``version_of(epoch,
  commit LSN, 0)``) are skipped: they came with a copy at an exact seam. Truncates come out none the less.
* ``receive(frames)`` hands over the next frames; only when ``next_item()`` has returned None.
* ``next_item()`` decodes until something needs attention: a Relation (always handed out before any row of it; the caller binds
  or not, then goes on), a Truncate (the caller takes what is pending before it), a Batch that is full, a Rejected row.
  None: the frames are used up. Begin, Commit, Origin, Type and Message never come out.
* ``take(table_oid)``: the pending rows of one table as a Batch, None without rows.
* ``pending``: table oids with pending rows → (rows, bytes of text, floor).
* ``position``: the last end_lsn of a Commit, or walEnd of a keep-alive outside a transaction: what may be confirmed when
  every row handed out or pending is durable. ``received``: the largest position this connection has seen; never confirm beyond it.
* ``place``: the version of the message read last (a Relation has that of the row message before it), and the xid of its transaction.
* ``committed_at``: commit time of the last transaction begun, microseconds since 1970. ``changes``: row messages so far.
  ``transactions``: commits so far. ``reply_requested``: a keep-alive asked for an answer; reading it resets it.
* A row's version: epoch, final_lsn of its Begin, ordinal = 256 times the frame's dataStart, which is the LSN of the WAL record; or 1 more
  than the Insert, Update, Delete or Truncate before it in the transaction, where that is more (rows of one record). A tombstone that
  precedes a row with a changed key has the same ordinal. Without a key every UPDATE is such a pair.
* ``text_bytes`` and ``max_bytes`` count the text of the values that are written into rows, tombstones included; NULL, unchanged
  and left out values count nothing. Unfit values are counted likewise: once for each row they are written into.
* Unchanged values are folded from the row before of the same key as encoded; a key change is followed, nothing is carried over a
  delete or a TRUNCATE. A hole whose row before in the batch is a hole too names it in ``after``.
* What stands in for an unfit value is told in ``codecs.py``. A Rejected row leaves no trace in rows or counters, apart from ``changes``.
* Malformed frames raise FrameError, which says which message and at which position; the decoder is of no use afterwards.

``CopyDecoder(plan, max_rows, max_bytes, first_ordinal)`` reads COPY's text format: ``receive(chunk)`` takes whole or split rows,
``full`` says that a limit is reached (a batch may pass it by the rows of one chunk), ``take()`` hands out a Batch or None,
``finish()`` raises FrameError for a split last row.
Rows carry version 0; in an event log (``Plan.event_log``) LSN 0 and the ordinals from ``first_ordinal`` on; in a history the
operation COPY and committed_at 0 too.
A Rejected row raises UnfitKeyError, UnfitValueError or BadDataError.

``encode(codec, text)`` encodes a single value (None: NULL) as a Value, for the values of holes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.decode.reference import CopyDecoder, StreamDecoder, encode

__all__ = ["CopyDecoder", "StreamDecoder", "encode", "implementation"]

_wanted = os.environ.get("PENSTOCK_DECODER", "")
implementation: Literal["native", "python"]

if _wanted not in ("", "native", "python"):
    raise ConfigError(f"PENSTOCK_DECODER is {_wanted!r}", hint="Set it to python or native, or leave it out.")
if not TYPE_CHECKING:
    if _wanted == "python":
        from penstock.decode.reference import CopyDecoder, StreamDecoder, encode

        implementation = "python"
    else:
        try:
            from penstock.decode._native import CopyDecoder, StreamDecoder, encode

            implementation = "native"
        except ImportError:
            if _wanted == "native":
                raise ConfigError(
                    "PENSTOCK_DECODER is native, and the compiled decoder is not there",
                    hint="Install a C compiler and Python's headers, then install penstock again.",
                ) from None
            from penstock.decode.reference import CopyDecoder, StreamDecoder, encode

            implementation = "python"
