"""A problem that a check found, with its fix."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How much a finding matters."""

    BLOCKING = "blocking"  # the pipe cannot run
    WARNING = "warning"  # it runs, but something will hurt
    INFO = "info"  # worth knowing


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, with which object, and the exact statement or step that mends it."""

    check: str  # the check's name: "wal_level", "replica_identity"
    severity: Severity
    subject: str  # the object: a table, a role, a setting
    problem: str  # one sentence
    fix: str = ""  # a statement or a step; empty where there is nothing to do
