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
from penstock.language import N_

Kind = type[DestinationError] | type[TableError]


@dataclass(frozen=True, slots=True)
class Meaning:
    """The class of the error, what happened, and what to do."""

    kind: Kind
    problem: str
    hint: str


def _all(kind: Kind, problem: str, hint: str, codes: tuple[int, ...]) -> dict[int, Meaning]:
    return dict.fromkeys(codes, Meaning(kind, problem, hint))


_WAITS = N_("Penstock tries again by itself; look at the server if it goes on.")
_SHAPE = N_("Compare the table with what `penstock check` asks for; mend it, or drop it and resync the table.")

DISK_FULL = Meaning(
    DestinationUnavailableError,
    N_("the disk is full"),
    N_("Free space on ClickHouse's disk; Penstock tries again by itself."),
)

MEANINGS: dict[int, Meaning] = {
    # the server is there, and cannot take data at the moment
    **_all(
        DestinationUnavailableError, N_("the connection broke"), _WAITS, (3, 23, 24, 95, 96, 203, 209, 210, 279, 1000)
    ),
    **_all(
        DestinationUnavailableError, N_("a file cannot be read or written"), _WAITS, (74, 75, 76, 425, 499, 531, 1001)
    ),
    **_all(DestinationUnavailableError, N_("the statement ran out of time"), _WAITS, (159, 160, 341)),
    **_all(
        DestinationUnavailableError,
        N_("memory is short"),
        N_("Give ClickHouse more memory, or lower max_batch_rows and max_batch_bytes; Penstock tries again by itself."),
        (173, 241),
    ),
    **_all(DestinationUnavailableError, N_("a host name cannot be resolved"), _WAITS, (198,)),
    **_all(
        DestinationUnavailableError,
        N_("the user's quota is used up"),
        N_("Raise the quota of the user; Penstock tries again by itself."),
        (201,),
    ),
    **_all(
        DestinationUnavailableError,
        N_("too much is going on at once"),
        N_("Raise max_concurrent_queries or the user's limit; Penstock tries again by itself."),
        (202, 364, 439, 700, 745, 749, 762),
    ),
    **_all(DestinationUnavailableError, N_("the same statement still runs"), _WAITS, (216, 319)),
    **_all(DestinationUnavailableError, N_("the statement was cancelled"), _WAITS, (236, 394, 735)),
    **_all(
        DestinationUnavailableError,
        N_("the table is read-only"),
        N_("Look at the replica's state and at Keeper; Penstock tries again by itself."),
        (242,),
    ),
    243: DISK_FULL,
    **_all(
        DestinationUnavailableError,
        N_("too many parts: merging cannot keep up"),
        N_("Raise flush_interval, or give ClickHouse more processors; Penstock tries again by itself."),
        (252,),
    ),
    **_all(
        DestinationUnavailableError,
        N_("Keeper or a replica is missing"),
        N_("Look at Keeper and at the replicas; Penstock tries again by itself."),
        (225, 244, 254, 285, 286, 289, 999),
    ),
    **_all(DestinationUnavailableError, N_("the table is busy with other changes"), _WAITS, (473, 517, 733, 738)),
    # the server says no
    **_all(
        DestinationRefusedError,
        N_("the user or the password is wrong"),
        N_("Correct the user in the destination's dsn, or its password."),
        (192, 193, 194, 516, 767),
    ),
    **_all(
        DestinationRefusedError,
        N_("this address may not connect as this user"),
        N_("Allow the address for the user in ClickHouse."),
        (195, 763),
    ),
    **_all(
        DestinationRefusedError,
        N_("the user lacks a privilege"),
        N_("Grant SELECT, INSERT, CREATE, ALTER and DROP on the destination's database to the user."),
        (291, 497),
    ),
    **_all(
        DestinationRefusedError, N_("the user is read-only"), N_("Use a user whose profile has readonly = 0."), (164,)
    ),
    **_all(
        DestinationRefusedError,
        N_("a setting cannot be set"),
        N_("Loosen the constraint in the settings profile of the user."),
        (115, 344, 452),
    ),
    **_all(
        DestinationRefusedError,
        N_("the table is larger than may be dropped"),
        N_("Raise max_table_size_to_drop, or drop the table by hand."),
        (359,),
    ),
    **_all(
        DestinationRefusedError,
        N_("the server takes no more tables or databases"),
        N_("Raise its limit, or remove what is not needed."),
        (724, 725),
    ),
    # the table is not what was planned
    **_all(TargetConflictError, N_("a column is missing"), _SHAPE, (8, 10, 16, 47, 352)),
    **_all(TargetConflictError, N_("the columns do not match"), _SHAPE, (20, 44, 53, 122)),
    **_all(SchemaConflictError, N_("a type is not known there"), _SHAPE, (50,)),
    **_all(SchemaConflictError, N_("a table of that name exists already"), _SHAPE, (57,)),
    **_all(TargetConflictError, N_("the table is gone"), N_("Resync the table, which makes it anew."), (60, 218)),
    **_all(SchemaConflictError, N_("the database is gone"), N_("Create it, and resync the pipe."), (81,)),
    **_all(TargetConflictError, N_("a column takes no NULL"), _SHAPE, (349,)),
    **_all(SchemaConflictError, N_("the sorting key cannot be changed"), N_("Resync the table."), (524,)),
    **_all(SchemaConflictError, N_("the table's engine cannot do that"), _SHAPE, (36, 48)),
    # the rows are not what the table takes
    **_all(
        BadDataError,
        N_("a value cannot be read as its column's type"),
        N_("Give the column the type String in [tables.options], under types."),
        (6, 26, 27, 38, 41, 69, 70, 72, 321, 376, 407, 467, 675, 676, 691, 760),
    ),
    **_all(
        BadDataError,
        N_("the block is not well-formed"),
        N_("Please report this with the log."),
        (33, 117, 128, 130, 131, 190),
    ),
    **_all(
        BadDataError,
        N_("a row violates a CONSTRAINT of the table"),
        N_("Drop the constraint in ClickHouse: replicated rows are as they are."),
        (469,),
    ),
}

UNKNOWN_OF_INSERT = Meaning(
    BadDataError, N_("ClickHouse refused the rows"), N_("Look up the code in ClickHouse's manual and log.")
)
UNKNOWN = Meaning(
    DestinationRefusedError,
    N_("ClickHouse refused the statement"),
    N_("Look up the code in ClickHouse's manual and log."),
)
