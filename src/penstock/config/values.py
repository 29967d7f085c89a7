"""What keys of a definition may hold, beside plain texts: durations, sizes, words, secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, Strict, model_validator

from penstock.errors import ConfigError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)\s*")


def _seconds(value: object) -> object:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found:
        return float(found[1]) * _UNITS[found[2]]
    if isinstance(value, str | bool):
        raise ValueError(DURATION_WORDS)  # noqa: TRY004 -- pydantic tells nothing else
    return value


def _bytes(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(SIZE_WORDS)  # noqa: TRY004 -- pydantic tells nothing else
    return value


DURATION_WORDS = 'a duration is a number with a unit, such as "500ms", "1s", "5m"'
SIZE_WORDS = 'a size is a number with a unit, such as "512KiB", "64MiB"'
Seconds = Annotated[float, BeforeValidator(_seconds)]
Size = Annotated[ByteSize, BeforeValidator(_bytes)]
Whole = Annotated[int, Strict()]  # by itself pydantic takes true for 1, and "4" for 4
Flag = Annotated[bool, Strict()]
ProviderName = Literal[
    "auto",
    "aurora",
    "rds",
    "azure",
    "alloydb",
    "cloudsql",
    "supabase",
    "neon",
    "crunchy",
    "planetscale",
    "timescale",
    "heroku",
    "digitalocean",
    "yugabyte",
    "cockroach",
    "redshift",
    "generic",
]


class Section(BaseModel):
    """A table of the file. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Secret(Section):
    """Where a secret is read from: an environment variable, or a file."""

    env: str = Field(default="", description="The environment variable that holds the secret.")
    file: str = Field(default="", description="The file that holds it; line feeds at its end are left out.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Secret:
        if bool(self.env) == bool(self.file):
            raise ValueError('a secret is { env = "NAME" } or { file = "path" }')
        return self

    def read(self, *, way_out: str = "") -> str:
        """The secret itself. Raises ConfigError, which names the variable or the file; ``way_out`` says what else helps."""
        if self.env:
            if self.env not in os.environ:
                raise ConfigError(
                    f"the environment variable {self.env} is not set", hint=f"Set it, for example: export {self.env}=…"
                )
            return os.environ[self.env]
        try:
            return Path(self.file).expanduser().read_text().rstrip("\r\n")
        except OSError as error:
            raise ConfigError(
                f"the secret's file {self.file} cannot be read: {error.strerror}",
                hint=f"Check the path and its permissions. {way_out}".rstrip(),
            ) from None
