"""Azure's API for tests: a server on loopback that answers 202 and lets the caller ask until an operation is done, as Azure does.

Only what ``penstock setup`` asks of a flexible server. A restart really restarts a PostgreSQL, with the ``wal_level`` that was set.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.postgresqlflexibleservers import PostgreSQLManagementClient

from penstock.setup import azure_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
GROUP = "shop-group"
ROOT = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.DBforPostgreSQL/flexibleServers/"
LOOKS = 2  # for so many looks an operation is in progress


@dataclass
class Azure:
    """One flexible server, and what happened to it."""

    name: str = "shop"
    version: str = "16"
    availability: str = "Disabled"
    public: str = "Enabled"
    refuses: str = ""  # an operation that the credentials may not do
    values: dict[str, str] = field(default_factory=lambda: {"wal_level": "replica"})
    in_effect: dict[str, str] = field(default_factory=lambda: {"wal_level": "replica"})
    rules: dict[str, tuple[str, str]] = field(default_factory=dict)
    endpoints: list[str] = field(default_factory=list)
    restarted: int = 0
    on_restart: Callable[[dict[str, str]], None] = lambda _values: None
    operations: dict[str, int] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"{self.name}.postgres.database.azure.com"

    def server(self) -> dict[str, Any]:
        return {
            "id": ROOT + self.name,
            "name": self.name,
            "location": "koreacentral",
            "properties": {
                "version": self.version,
                "state": "Ready",
                "fullyQualifiedDomainName": self.host,
                "highAvailability": {"mode": self.availability},
                "network": {"publicNetworkAccess": self.public},
            },
        }

    def parameter(self, name: str) -> dict[str, Any]:
        value = self.values.get(name, "off")
        return {
            "name": name,
            "properties": {
                "value": value,
                "source": "user-override" if value != self._default(name) else "system-default",
                "isDynamicConfig": name != "wal_level",
                "isConfigPendingRestart": name == "wal_level" and value != self.in_effect[name],
            },
        }

    @staticmethod
    def _default(name: str) -> str:
        return {"wal_level": "replica"}.get(name, "off")

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body; a number above 200 begins an operation."""
        if self.refuses and self.refuses in path and method != "GET":
            return 403, {"error": {"code": "AuthorizationFailed", "message": "The client may not do that."}}
        if path.endswith("/flexibleServers"):
            return 200, {"value": [self.server()]}
        if path == ROOT + self.name:
            return 200, self.server()
        rest = path.removeprefix(ROOT + self.name + "/")
        if found := re.fullmatch(r"configurations/(\w+)", rest):
            if method != "GET":
                self.values[found[1]] = body["properties"]["value"].lower()
            return (200 if method == "GET" else 202), self.parameter(found[1])
        if rest == "restart":
            self.restarted += 1
            self.in_effect = dict(self.values)
            self.on_restart(self.in_effect)
            return 202, None
        if rest.startswith("firewallRules"):
            return self._firewall(method, rest.partition("/")[2], body)
        if rest.lower() == "virtualendpoints":
            kind = {"endpointType": "ReadWrite", "virtualEndpoints": self.endpoints}
            return 200, {"value": [{"name": "shop", "properties": kind}] if self.endpoints else []}
        return 404, {"error": {"code": "ResourceNotFound", "message": rest}}

    def _firewall(self, method: str, name: str, body: dict[str, Any]) -> tuple[int, Any]:
        if method == "PUT":
            given = body["properties"]
            self.rules[name] = (given["startIpAddress"], given["endIpAddress"])
            return 202, None
        if method == "DELETE":
            return (202, None) if self.rules.pop(name, None) else (204, None)
        every = [
            {"name": each, "properties": {"startIpAddress": first, "endIpAddress": last}}
            for each, (first, last) in self.rules.items()
        ]
        return 200, {"value": every} if not name else next(each for each in every if each["name"] == name)


class _Handler(BaseHTTPRequestHandler):
    fake: Azure

    def _respond(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        path = self.path.partition("?")[0]
        if path.startswith("/operations/"):
            left = self.fake.operations[path] = self.fake.operations.get(path, LOOKS) - 1
            self._send(200, {"status": "InProgress" if left > 0 else "Succeeded"}, {})
            return
        status, answer = self.fake.answer(self.command, path, body)
        place = f"http://{self.headers['Host']}/operations/{len(self.fake.operations) + 1}"
        self._send(status, answer, {"Azure-AsyncOperation": place} if status == 202 else {})

    def _send(self, status: int, answer: Any, headers: dict[str, str]) -> None:
        data = json.dumps(answer).encode() if answer is not None else b""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_PATCH = do_POST = do_DELETE = _respond

    def log_message(self, *_: object) -> None:
        pass


class _Credential:
    def get_token(self, *_scopes: str, **_: Any) -> Any:
        raise AssertionError("the policy asks for none")


@pytest.fixture
def microsoft(monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """A flexible server behind Azure's API."""
    fake = Azure()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        clients: list[Any] = []

        def client(subscription: str) -> Any:
            clients.append(
                PostgreSQLManagementClient(
                    _Credential(),  # type: ignore[arg-type]
                    subscription,
                    base_url=f"http://127.0.0.1:{http.server_port}",
                    authentication_policy=SansIOHTTPPolicy(),
                )
            )
            return clients[-1]

        monkeypatch.setattr(azure_servers, "client", client)
        monkeypatch.setattr(azure_servers, "poll_seconds", 0)
        monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
        yield fake
        for each in clients:
            each.close()
        http.shutdown()
        thread.join()
