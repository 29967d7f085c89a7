"""Places at which a test kills the process, to prove that nothing is lost there.

``PENSTOCK_FAILPOINT="after insert:3"`` ends the process, as kill -9 would, when the place is reached for the third time.
"""

from __future__ import annotations

import itertools
import os
import signal

OF_ROWS = (
    "after insert",
    "before save",
    "after save",
    "before confirm",
    "at the seam",
    "within a copy part",
    "after a copy part",
)
OF_DEFINITIONS = (
    "after a table",
    "before an alteration",
    "after an alteration",
    "after set back",
    "after a fresh table",
    "after an exchange",
    "after putting aside",
)
PLACES = OF_ROWS + OF_DEFINITIONS

_name, _, _nth = os.environ.get("PENSTOCK_FAILPOINT", "").partition(":")
_visits = itertools.count(1)


def reached(place: str) -> None:
    """Say that ``place`` (one of PLACES) is reached."""
    if place == _name and next(_visits) == int(_nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
