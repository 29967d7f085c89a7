"""Flexible servers of Azure's: found by their host, asked and changed through its API, whose errors become Penstock's."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, SourceRefusedError, SourceUnavailableError
from penstock.language import phrase, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.setup.asked import Asked

poll_seconds = 5.0  # between two looks at a server that is changing; tests look more often


def client(subscription: str) -> Any:
    """Azure's API. Credentials are found as every program of Azure's finds them. Raises ConfigError."""
    try:
        from azure.identity import DefaultAzureCredential
        from azure.mgmt.postgresqlflexibleservers import PostgreSQLManagementClient
    except ImportError:
        raise ConfigError(said("Azure's library is not installed"), hint="pip install 'penstock[azure]'") from None
    return PostgreSQLManagementClient(DefaultAzureCredential(), subscription)


@dataclass(frozen=True, slots=True)
class Server:
    """A flexible server."""

    api: Any
    subscription: str
    group: str  # its resource group
    name: str

    @property
    def title(self) -> str:
        """For people."""
        return f"server {self.name}"

    def described(self) -> Any:
        """Its properties as they are now."""
        with told(f"server {self.name}"):
            return self.api.servers.get(self.group, self.name).properties

    def parameter(self, name: str) -> Any:
        """A parameter's value, default, source, and whether it waits for a restart."""
        with told(f"parameter {name} of server {self.name}"):
            return self.api.configurations.get(self.group, self.name, name).properties

    def set(self, name: str, value: str, source: str = "user-override") -> None:
        """Set a parameter, and wait until that is done."""
        body = {"properties": {"value": value, "source": source}}
        with told(f"parameter {name} of server {self.name}"):
            self.api.configurations.begin_update(
                self.group, self.name, name, body, polling_interval=poll_seconds
            ).result()

    def restart(self) -> None:
        """Restart it, and wait until it is back."""
        with told(f"restart of server {self.name}"):
            self.api.servers.begin_restart(self.group, self.name, polling_interval=poll_seconds).result()


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """Azure's errors become Penstock's."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except ClientAuthenticationError as error:
        raise ConfigError(
            said("there are no credentials of Azure's here: {error}", error=error.message.splitlines()[0]),
            hint=said("Run: az login; or do it by hand, as follows."),
        ) from None
    except HttpResponseError as error:
        code = error.error.code if error.error else error.status_code
        raise SourceRefusedError(
            f"{doing}: {code}: {error.message.splitlines()[0]}",
            hint=phrase(
                "Let the credentials do that (the role Contributor of the server), or do it by hand and run setup again."
            ),
        ) from None
    except AzureError as error:
        raise SourceUnavailableError(
            f"{doing}: {error.message}", hint=phrase("Check the way to Azure's API, and run it again.")
        ) from None


def find(asked: Asked) -> Server:
    """The server behind the source's host, which may be a virtual endpoint. Raises ConfigError where there is none."""
    subscription = asked.choices.get("subscription") or os.environ.get("AZURE_SUBSCRIPTION_ID", "")
    if not subscription:
        raise ConfigError(
            said("it is not known in which subscription the server is"),
            hint=said("Set AZURE_SUBSCRIPTION_ID, or give it: --with subscription=…"),
        )
    api = client(subscription)
    host, wanted = asked.host.lower(), asked.choices.get("server", "")
    with told("the list of servers"):
        every = list(api.servers.list_by_subscription())
    found = [(each.id.split("/")[4], each) for each in every]
    for group, each in found:
        if wanted == each.name or str(each.properties.fully_qualified_domain_name).lower() == host:
            return Server(api, subscription, group, each.name)
    for group, each in found:
        server = Server(api, subscription, group, each.name)
        if host in (name for _, names in endpoints(server) for name in names):
            return server
    raise ConfigError(
        said("no server in the subscription {subscription} has the name {host}", subscription=subscription, host=host),
        hint=said("Use credentials and the subscription that it is in; or name it: --with server=NAME."),
    )


def endpoints(server: Server) -> list[tuple[str, list[str]]]:
    """Virtual endpoints: their kind, and their names."""
    with told(f"virtual endpoints of server {server.name}"):
        found = list(server.api.virtual_endpoints.list_by_server(server.group, server.name))
    return [
        (word(each.properties.endpoint_type), [name.lower() for name in each.properties.virtual_endpoints or ()])
        for each in found
    ]


def word(value: Any) -> str:
    """One of Azure's words, which come as enums or as texts."""
    return str(getattr(value, "value", value) or "")
