"""Tokens that stand in for a password: made anew for each connection, valid for minutes, never kept, never shown.

Amazon's is signed here for one host, port and user with whatever credentials AWS's own chain finds; nobody is asked. Microsoft's is
fetched by azure-identity, which keeps it until it is about to expire. Both are bearers' papers: they travel over TLS only.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from penstock.errors import ConfigError, PenstockError, SourceRefusedError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.config import Source

CLIENT_SECONDS = 60
SECURE = ("require", "verify-ca", "verify-full")
_RDS_REGION = re.compile(r"\.([a-z0-9-]+)\.rds\.amazonaws\.com|\.rds\.([a-z0-9-]+)\.amazonaws\.com\.cn")
_CLOUDS = {
    "chinacloudapi.cn": "login.chinacloudapi.cn",
    "usgovcloudapi.net": "login.microsoftonline.us",
    "azure.com": "login.microsoftonline.com",
}
"""Azure's clouds: the end of a server's name, and who issues the tokens of that cloud."""


def token(source: Source, parameters: Mapping[str, Any]) -> str:
    """A token for one host. Raises ConfigError, SourceRefusedError and SourceUnavailableError."""
    if source.authentication == "aws-iam":
        return _of_aws(parameters, source.region)
    return _of_entra(str(parameters.get("host") or ""))


def require_secure(source: Source, parameters: Mapping[str, Any]) -> None:
    """Refuse what would give a token to anybody. Raises ConfigError."""
    if parameters.get("sslmode") not in SECURE:
        raise ConfigError(
            f'source.authentication = "{source.authentication}" sends a token, and source.dsn does not ask for TLS',
            hint="Write sslmode=verify-full (with sslrootcert) into the DSN; sslmode=require at the least.",
        )
    if parameters.get("password"):
        raise ConfigError(
            f'source.authentication = "{source.authentication}" makes the password itself, and source.dsn holds one',
            hint="Take the password out of the DSN.",
        )


def _of_aws(parameters: Mapping[str, Any], region: str) -> str:
    try:
        import boto3  # noqa: F401  (whether the extra is there, which has more than botocore)
        from botocore.exceptions import BotoCoreError, NoRegionError
    except ImportError:
        raise _not_installed("aws") from None
    host, user = str(parameters.get("host") or ""), str(parameters.get("user") or "")
    if not host or not user:
        raise ConfigError(
            "a token of AWS is made for a host and a user, and source.dsn lacks one", hint="Write both into it."
        )
    found = _RDS_REGION.search(host)
    chosen = region or (found and (found[1] or found[2])) or None
    try:
        made = _client(chosen, int(time.monotonic() // CLIENT_SECONDS)).generate_db_auth_token(
            DBHostname=host, Port=int(parameters.get("port") or 5432), DBUsername=user
        )
    except NoRegionError:
        raise ConfigError("the AWS region of the source is not known", hint='Write region = "…" in [source].') from None
    except BotoCoreError as error:
        raise SourceRefusedError(
            f"no token for {user} at {host}: {_first_line(error)}",
            hint="Give this process AWS credentials: a role of the instance or task, AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret.",
        ) from None
    return str(made)


@lru_cache(maxsize=8)
def _client(region: str | None, _age: int) -> Any:
    """One that signs: it takes a while to make, and reads the credentials once, so that it is not kept for long."""
    import boto3

    return boto3.session.Session().client("rds", region_name=region)


def _of_entra(host: str) -> str:
    try:
        from azure.core.exceptions import AzureError, ServiceRequestError
    except ImportError:
        raise _not_installed("azure") from None
    ending = next((each for each in _CLOUDS if host.endswith(each)), "azure.com")
    scope = f"https://ossrdbms-aad.database.{'windows.net' if ending == 'azure.com' else ending}/.default"
    try:
        return str(_credential(_CLOUDS[ending]).get_token(scope).token)
    except ServiceRequestError as error:
        raise SourceUnavailableError(
            f"no token for {host}: {_first_line(error)}", hint="Check the way to Entra; Penstock tries again."
        ) from None
    except AzureError as error:
        raise SourceRefusedError(
            f"no token for {host}: {_first_line(error)}",
            hint="Give this process an identity: a managed one, az login, or AZURE_TENANT_ID, AZURE_CLIENT_ID and its secret.",
        ) from None


@lru_cache
def _credential(authority: str) -> Any:
    """One for each cloud: it keeps tokens, and gets a new one before the old one expires."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(authority=authority)


def _not_installed(extra: str) -> PenstockError:
    return ConfigError(
        f"tokens need the extra {extra}, which is not installed", hint=f"Run: pip install 'penstock[{extra}]'"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
