"""Credential helpers: create short-lived credentials for a registry, selected by name in the connection.

Amazon's are issued by AWS for a key or role (its page "Private registry authentication"): the same as from ``aws ecr
get-login-password``, with the expiry that AWS states.

A helper for another cloud is a function of the same signature in a module of its own, a line in :data:`MINTS`, and its
name in the form (``provider.py``). It imports its SDK only when it is called.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from registry_sync.domain.known_registries import known_registry
from registry_sync.domain.references import RegistryUrl
from registry_sync.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ProtocolError,
    RegistryError,
    ServerUnavailable,
)
from registry_sync.oci.auth.credentials import Credentials, Minted, MintedCredentials
from registry_sync.oci.http.error_mapping import printable

_ACCESS_KEY = re.compile(r"[A-Z0-9]{16,128}")
#: Transient refusals: AWS is overloaded, or limits requests.
_TRANSIENT = frozenset({"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"})


def amazon_ecr(registry: RegistryUrl, login: Credentials, proxy_url: str | None) -> Callable[[], Minted]:
    """Returns the function that creates credentials for ``registry``, private or public Amazon ECR.

    The hosts are ``<account>.dkr.ecr.<region>.amazonaws.com`` and ``public.ecr.aws``. ``login`` is an access key and
    its secret; anonymous lets boto3 look for a key or role. Raises :class:`ConfigurationError` for another host, for a
    user name that is no key, and without boto3.
    """
    known = known_registry(registry.host)
    found = known.parts(registry.host)
    if known.credential_helper != "amazon_ecr" or known.login_service is None or found is None:
        raise ConfigurationError(
            "credential_helper amazon_ecr creates passwords for <account>.dkr.ecr.<region>.amazonaws.com and "
            f"public.ecr.aws, and {registry.netloc} is neither"
        )
    if (login.username or login.password) and not (login.has_password and _ACCESS_KEY.fullmatch(login.username or "")):
        raise ConfigurationError(
            "with credential_helper amazon_ecr, user name and password are an AWS access key and its secret; leave "
            "both empty to use the role or key that boto3 finds by itself"
        )
    service, is_fips = known.login_service, bool(found.get("fips"))
    arguments = {"registryIds": [found["account"]]} if "account" in found else {}
    session = _boto3().session.Session(
        aws_access_key_id=login.username,
        aws_secret_access_key=login.password,
        region_name=known.login_region or found["region"],
    )

    def mint() -> Minted:
        response = _request_token(session, service, arguments, registry.netloc, proxy_url=proxy_url, is_fips=is_fips)
        return _read(response, registry.netloc)

    return mint


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as problem:
        raise ConfigurationError(
            "credential_helper amazon_ecr needs boto3: install registry-sync[amazon] wherever tasks and the API server "
            "run"
        ) from problem
    return boto3


def _request_token(
    session: Any, service: str, arguments: dict[str, Any], host: str, *, proxy_url: str | None, is_fips: bool
) -> dict[str, Any]:
    """The response of AWS. Only the connection's proxy is used: proxies of the environment are ignored."""
    from botocore import exceptions
    from botocore.config import Config

    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 3},
        proxies={"http": proxy_url, "https": proxy_url} if proxy_url else {},
        use_fips_endpoint=is_fips or None,
    )
    try:
        client = session.client(service, config=config)
        try:
            return client.get_authorization_token(**arguments)  # type: ignore[no-any-return]
        finally:
            client.close()
    except exceptions.ClientError as problem:
        raise _refusal(problem.response, service, host) from problem
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as problem:
        raise ServerUnavailable(
            f"no password for {host} could be requested from AWS: {problem}", host=host
        ) from problem
    except exceptions.BotoCoreError as problem:
        raise ConfigurationError(
            f"no password for {host} could be requested from AWS: {problem}. Give an access key and its secret as user "
            "name and password of the connection, or a role to the machine"
        ) from problem


def _refusal(response: dict[str, Any], service: str, host: str) -> RegistryError:
    error = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    code = printable(str(error.get("Code") or ""))
    message = f"AWS refused a password for {host}: {code}: {printable(str(error.get('Message') or ''))}"
    if status >= 500 or code in _TRANSIENT:
        return ServerUnavailable(message, host=host)
    return AuthenticationFailed(
        f"{message} (the key or role needs {service}:GetAuthorizationToken)", host=host, codes=(code,)
    )


def _read(response: dict[str, Any], host: str) -> Minted:
    """The password and its lifetime. Private registries' responses have a list of one, the public one's the entry."""
    data = response.get("authorizationData")
    try:
        entry = data[0] if isinstance(data, list) else data or {}
        pair = base64.b64decode(entry["authorizationToken"], validate=True).decode("utf-8")
        username, _, password = pair.partition(":")
        life_seconds = entry["expiresAt"].timestamp() - time.time()
    except (ValueError, LookupError, TypeError, AttributeError):
        username, password, life_seconds = "", "", 0.0
    if not username or not password:
        raise ProtocolError(f"AWS responded without a password for {host}", host=host)
    return Minted(Credentials(username, password), life_seconds)


#: From the registry, the user name and password of the connection, and the proxy, to the function that creates
#: credentials. Each raises :class:`~registry_sync.errors.ConfigurationError` at once for errors that need no request.
MINTS: Mapping[str, Callable[[RegistryUrl, Credentials, str | None], Callable[[], Minted]]] = {
    "amazon_ecr": amazon_ecr,
}


def minted_credentials(
    helper: str, registry: RegistryUrl, login: Credentials, proxy_url: str | None
) -> MintedCredentials:
    """Credentials for ``registry`` from ``helper``, requested when they are first used."""
    return MintedCredentials(MINTS[helper](registry, login, proxy_url))
