"""Amazon's API as setup needs it: calls with errors that say what to do, the same calls as command lines, and waiting."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, SourceRefusedError, SourceUnavailableError
from penstock.language import phrase, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from penstock.setup.asked import Asked

NOTHING: Mapping[str, Any] = MappingProxyType({})
WAIT_SECONDS = 1800.0
poll_seconds = 5.0  # between two looks at a server that is changing; tests look more often


@dataclass(frozen=True, slots=True)
class Api:
    """Amazon's API of one region. Credentials are found as every program of Amazon's finds them."""

    region: str
    session: Any
    clients: dict[str, Any] = field(default_factory=dict)  # by service; one takes a moment to make

    @classmethod
    def of(cls, asked: Asked, region: str = "") -> Api:
        """Raises ConfigError where there is no boto3, no region or no credentials: then people have to do it."""
        region = region or asked.pipe.source.region or asked.facts()["region"]
        if region == "REGION":
            raise ConfigError(
                said("the host's name does not say which region it is in"), hint=said('Write region = "…" in [source].')
            )
        try:
            import boto3
        except ImportError:
            raise ConfigError(said("Amazon's library is not installed"), hint="pip install 'penstock[aws]'") from None
        if boto3.DEFAULT_SESSION is None:
            boto3.setup_default_session()
        session = boto3.DEFAULT_SESSION
        if session.get_credentials() is None:
            raise ConfigError(
                said("there are no credentials of Amazon's here"),
                hint=said("Set AWS_PROFILE, or run: aws configure; or do it by hand, as follows."),
            )
        return cls(region, session)

    def call(
        self, service: str, operation: str, parameters: Mapping[str, Any] = NOTHING, *, absent: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """One call; nothing for an error of these codes, which say that the thing is not there.

        Raises SourceRefusedError with Amazon's own words, SourceUnavailableError when nobody answers.
        """
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        if service not in self.clients:
            settings = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard"})
            self.clients[service] = self.session.client(service, region_name=self.region, config=settings)
        try:
            answer: dict[str, Any] = getattr(self.clients[service], operation)(**parameters)
        except ClientError as error:
            told = error.response["Error"]
            if told.get("Code") in absent:
                return {}
            raise SourceRefusedError(
                f"{service} {operation}: {told.get('Code')}: {told.get('Message')}",
                hint=phrase(
                    "Let the credentials do that; or do it by hand, and run setup again: {command}",
                    command=command(self.region, service, operation, parameters),
                ),
            ) from None
        except BotoCoreError as error:
            raise SourceUnavailableError(
                f"{service} {operation}: {error}", hint=phrase("Check the way to Amazon's API, and the credentials.")
            ) from None
        return answer

    def every(
        self, service: str, operation: str, key: str, parameters: Mapping[str, Any] = NOTHING
    ) -> Iterator[dict[str, Any]]:
        """The items of all pages."""
        marker: dict[str, str] = {}
        while True:
            answer = self.call(service, operation, {**parameters, **marker})
            yield from answer[key]
            if not answer.get("Marker"):
                return
            marker = {"Marker": answer["Marker"]}

    def until(self, condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> bool:
        """Wait. False after ``seconds`` where these are given, otherwise SourceUnavailableError."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                if seconds < WAIT_SECONDS:
                    return False
                raise SourceUnavailableError(
                    phrase("{what}: not within {minutes} minutes", what=what, minutes=round(seconds / 60)),
                    hint=phrase("See the console, and run it again."),
                )
            time.sleep(poll_seconds)
        return True


def command(region: str, service: str, operation: str, parameters: Mapping[str, Any]) -> str:
    """The same call by Amazon's command line."""
    words = ["aws", service, operation.replace("_", "-"), "--region", region]
    for name, value in parameters.items():
        option = "--" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
        if value is True:
            words.append(option)
        else:
            words += [option, _word(value)]
    return " ".join(words)


def _word(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return " ".join(map(_word, value))
    text = value if isinstance(value, str) else json.dumps(value)
    return text if re.fullmatch(r"[\w.:/@,+=-]+", text) else "'" + text.replace("'", "'\\''") + "'"
