"""What ClickHouse's error codes mean for a pipe, as data (ClickHouse source: src/Common/ErrorCodes.cpp).

A code that stands here nowhere stops one table where an insert met it, and the pipe otherwise: it is never retried in silence.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import (
    BadDataError,
    DestinationError,
    DestinationRefusedError,
    DestinationUnavailableError,
    SchemaConflictError,
    TableError,
    TargetConflictError,
)

Kind = type[DestinationError] | type[TableError]


@dataclass(frozen=True, slots=True)
class Meaning:
    """The class of the error, what happened, and what to do."""

    kind: Kind
    problem: str
    hint: str


def _all(kind: Kind, problem: str, hint: str, codes: tuple[int, ...]) -> dict[int, Meaning]:
    return dict.fromkeys(codes, Meaning(kind, problem, hint))


_WAITS = "Penstock tries again by itself; look at the server if it goes on."
_SHAPE = "Compare the table with what `penstock check` asks for; mend it, or drop it and resync the table."

DISK_FULL = Meaning(
    DestinationUnavailableError, "the disk is full", "Free space on ClickHouse's disk; Penstock tries again by itself."
)

MEANINGS: dict[int, Meaning] = {
    # the server is there, and cannot take data at the moment
    **_all(DestinationUnavailableError, "the connection broke", _WAITS, (3, 23, 24, 95, 96, 203, 209, 210, 279, 1000)),
    **_all(DestinationUnavailableError, "a file cannot be read or written", _WAITS, (74, 75, 76, 425, 499, 531, 1001)),
    **_all(DestinationUnavailableError, "the statement ran out of time", _WAITS, (159, 160, 341)),
    **_all(
        DestinationUnavailableError,
        "memory is short",
        "Give ClickHouse more memory, or lower max_batch_rows and max_batch_bytes; Penstock tries again by itself.",
        (173, 241),
    ),
    **_all(DestinationUnavailableError, "a host name cannot be resolved", _WAITS, (198,)),
    **_all(
        DestinationUnavailableError,
        "the user's quota is used up",
        "Raise the quota of the user; Penstock tries again by itself.",
        (201,),
    ),
    **_all(
        DestinationUnavailableError,
        "too much is going on at once",
        "Raise max_concurrent_queries or the user's limit; Penstock tries again by itself.",
        (202, 364, 439, 700, 745, 749, 762),
    ),
    **_all(DestinationUnavailableError, "the same statement still runs", _WAITS, (216, 319)),
    **_all(DestinationUnavailableError, "the statement was cancelled", _WAITS, (236, 394, 735)),
    **_all(
        DestinationUnavailableError,
        "the table is read-only",
        "Look at the replica's state and at Keeper; Penstock tries again by itself.",
        (242,),
    ),
    243: DISK_FULL,
    **_all(
        DestinationUnavailableError,
        "too many parts: merging cannot keep up",
        "Raise flush_interval, or give ClickHouse more processors; Penstock tries again by itself.",
        (252,),
    ),
    **_all(
        DestinationUnavailableError,
        "Keeper or a replica is missing",
        "Look at Keeper and at the replicas; Penstock tries again by itself.",
        (225, 244, 254, 285, 286, 289, 999),
    ),
    **_all(DestinationUnavailableError, "the table is busy with other changes", _WAITS, (473, 517, 733, 738)),
    # the server says no
    **_all(
        DestinationRefusedError,
        "the user or the password is wrong",
        "Correct the user in the destination's dsn, or its password.",
        (192, 193, 194, 516, 767),
    ),
    **_all(
        DestinationRefusedError,
        "this address may not connect as this user",
        "Allow the address for the user in ClickHouse.",
        (195, 763),
    ),
    **_all(
        DestinationRefusedError,
        "the user lacks a privilege",
        "Grant SELECT, INSERT, CREATE, ALTER and DROP on the destination's database to the user.",
        (291, 497),
    ),
    **_all(DestinationRefusedError, "the user is read-only", "Use a user whose profile has readonly = 0.", (164,)),
    **_all(
        DestinationRefusedError,
        "a setting cannot be set",
        "Loosen the constraint in the settings profile of the user.",
        (115, 344, 452),
    ),
    **_all(
        DestinationRefusedError,
        "the table is larger than may be dropped",
        "Raise max_table_size_to_drop, or drop the table by hand.",
        (359,),
    ),
    **_all(
        DestinationRefusedError,
        "the server takes no more tables or databases",
        "Raise its limit, or remove what is not needed.",
        (724, 725),
    ),
    # the table is not what was planned
    **_all(TargetConflictError, "a column is missing", _SHAPE, (8, 10, 16, 47, 352)),
    **_all(TargetConflictError, "the columns do not match", _SHAPE, (20, 44, 53, 122)),
    **_all(SchemaConflictError, "a type is not known there", _SHAPE, (50,)),
    **_all(SchemaConflictError, "a table of that name exists already", _SHAPE, (57,)),
    **_all(TargetConflictError, "the table is gone", "Resync the table, which makes it anew.", (60, 218)),
    **_all(SchemaConflictError, "the database is gone", "Create it, and resync the pipe.", (81,)),
    **_all(TargetConflictError, "a column takes no NULL", _SHAPE, (349,)),
    **_all(SchemaConflictError, "the sorting key cannot be changed", "Resync the table.", (524,)),
    **_all(SchemaConflictError, "the table's engine cannot do that", _SHAPE, (36, 48)),
    # the rows are not what the table takes
    **_all(
        BadDataError,
        "a value cannot be read as its column's type",
        "Give the column the type String in [tables.options], under types.",
        (6, 26, 27, 38, 41, 69, 70, 72, 321, 376, 407, 467, 675, 676, 691, 760),
    ),
    **_all(
        BadDataError, "the block is not well-formed", "Please report this with the log.", (33, 117, 128, 130, 131, 190)
    ),
    **_all(
        BadDataError,
        "a row violates a CONSTRAINT of the table",
        "Drop the constraint in ClickHouse: replicated rows are as they are.",
        (469,),
    ),
}

UNKNOWN_OF_INSERT = Meaning(
    BadDataError, "ClickHouse refused the rows", "Look up the code in ClickHouse's manual and log."
)
UNKNOWN = Meaning(
    DestinationRefusedError, "ClickHouse refused the statement", "Look up the code in ClickHouse's manual and log."
)
