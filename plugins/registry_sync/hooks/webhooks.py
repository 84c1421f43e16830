"""Webhooks: Airflow connections of type ``registry_webhook``, one for each registry that sends notifications here.

So a webhook's secret is stored, encrypted, rotated and found as Airflow's other secrets are, and whoever may create
connections may create webhooks. Nothing of it is needed in tasks.
"""

from __future__ import annotations

import base64
import hmac
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook
from cachetools import TTLCache

from registry_sync.domain.push_notifications import PushedTag, WebhookKind
from registry_sync.errors import ConfigurationError, RecordNotFound

if TYPE_CHECKING:
    import jwt

#: The type of these connections.
CONNECTION_TYPE = "registry_webhook"
#: The fewest characters of a secret: guessing one is then no way in, at whatever rate.
LEAST_SECRET_LENGTH = 20
#: How long a connection is used without being read again, in seconds; also one that does not exist.
KEPT_SECONDS = 10.0
#: Where Google publishes the keys that it signs tokens of push subscriptions with.
GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
_GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_SIGNATURE, _SIGNATURE_PREFIX = "x-hub-signature-256", "sha256="
_KEYS_PATIENCE_SECONDS = 5


class RegistryWebhookHook(BaseHook):
    """Declares the type of connection to Airflow; a webhook is called, and calls nobody.

    :param webhook_conn_id: the connection
    """

    conn_name_attr = "webhook_conn_id"
    default_conn_name = "registry_webhook_default"
    conn_type = CONNECTION_TYPE
    hook_name = "Registry webhook"

    def __init__(self, webhook_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.webhook_conn_id = webhook_conn_id

    def test_connection(self) -> tuple[bool, str]:
        """Whether notifications can be taken with it, and what was read."""
        try:
            webhook = read_webhook(self.webhook_conn_id, self.get_connection(self.webhook_conn_id))
        except ConfigurationError as problem:
            return False, str(problem)
        return True, f"takes notifications of {webhook.kind.value}, about {', '.join(webhook.repositories) or 'all'}"


@dataclass(frozen=True)
class Webhook:
    """``name`` is the connection's id. ``registry`` is ``host[:port]`` as remotes name it, None for the notification's.

    ``repositories`` are globs of repositories on the registry, none for all. Tokens of Google are taken for
    ``audience``, and of ``service_account`` alone where that is set; without an audience the secret counts.
    """

    name: str
    kind: WebhookKind
    secret: str = field(repr=False)
    registry: str | None = None
    repositories: tuple[str, ...] = ()
    audience: str | None = None
    service_account: str | None = None

    def accepts(self, headers: Mapping[str, str], given: str | None, body: bytes) -> bool:
        """Whether a notification came from who knows the secret; ``headers`` have names in lower case.

        GitHub signs ``body``, and Google may sign a token. All others send the secret itself: as a bearer token, as
        the password of HTTP Basic or as the whole of ``Authorization``, or ``given`` in the URL.
        """
        if self.kind is WebhookKind.GITHUB:
            return _is_signed(body, self.secret, headers.get(_SIGNATURE, ""))
        authorization = headers.get("authorization", "")
        if self.kind is WebhookKind.GOOGLE and self.audience is not None:
            return self._is_token_of_google(_after("bearer", authorization) or "")
        sent = (given, authorization, _after("bearer", authorization), _password(authorization))
        return any(_is_same(text or "", self.secret) for text in sent)

    def _is_token_of_google(self, token: str) -> bool:
        import jwt

        try:
            key = _google_keys().get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self.audience,
                issuer=_GOOGLE_ISSUERS,
                options={"require": ["exp", "iat", "aud", "iss"]},
            )
        except jwt.PyJWKClientConnectionError as problem:
            raise ConfigurationError(f"Google's keys cannot be read from {GOOGLE_KEYS}: {problem}") from None
        except jwt.PyJWTError:
            return False
        is_account = claims.get("email") == self.service_account and claims.get("email_verified") is True
        return self.service_account is None or is_account

    def wants(self, pushed: PushedTag) -> bool:
        """Whether it is of a repository that this webhook is for."""
        return not self.repositories or any(fnmatchcase(pushed.repository, glob) for glob in self.repositories)


_found: TTLCache[str, Webhook | None] = TTLCache(1000, KEPT_SECONDS, timer=time.monotonic)
_lock = threading.Lock()


def load_webhook(name: str) -> Webhook:
    """The webhook of that name, in Airflow's API server; read again after :data:`KEPT_SECONDS`.

    Raises :class:`RecordNotFound`, also for a connection of another type, and :class:`ConfigurationError` for one that
    cannot be used.
    """
    with _lock:
        is_known, webhook = name in _found, _found.get(name)
    if not is_known:
        webhook = _read(name)  # others do not wait for it
        with _lock:
            _found[name] = webhook
    if webhook is None:
        raise RecordNotFound(f"there is no webhook {name[:200]!r}")
    return webhook


def _read(name: str) -> Webhook | None:
    from airflow.models import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = Connection.get_connection_from_secrets(name)
    except AirflowNotFoundException:
        return None
    return read_webhook(name, connection) if connection.conn_type == CONNECTION_TYPE else None


def read_webhook(name: str, connection: Any) -> Webhook:
    """The webhook of a connection. Raises :class:`ConfigurationError`, which names the connection and the field."""
    extra = connection.extra_dejson

    def text(field_name: str) -> str | None:
        value = extra.get(field_name)
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"connection {name!r}: {field_name} in Extra is no text")
        return (value or "").strip() or None

    try:
        kind = WebhookKind(text("kind") or "")
    except ValueError:
        known = ", ".join(one.value for one in WebhookKind)
        raise ConfigurationError(f"connection {name!r}: choose a kind, one of {known}") from None
    audience, secret = text("audience"), connection.password or ""
    if len(secret) < LEAST_SECRET_LENGTH and not (kind is WebhookKind.GOOGLE and audience):
        raise ConfigurationError(
            f"connection {name!r}: the secret, its password, must have at least {LEAST_SECRET_LENGTH} characters, as "
            "whoever knows it may start syncs; make one with: openssl rand -hex 24"
        )
    host = (connection.host or "").strip().lower()
    registry = f"{host}:{connection.port}" if host and connection.port else host or None
    globs = tuple((text("repositories") or "").replace(",", " ").split())
    return Webhook(name, kind, secret, registry, globs, audience, text("service_account"))


def forget_webhooks() -> None:
    """Reads each again when it is needed next."""
    with _lock:
        _found.clear()


def _is_same(text: str, secret: str) -> bool:
    return bool(secret) and hmac.compare_digest(text.encode(errors="replace"), secret.encode())


def _is_signed(body: bytes, secret: str, signature: str) -> bool:
    """HMAC-SHA256 in ``X-Hub-Signature-256``, as GitHub signs deliveries."""
    expected = _SIGNATURE_PREFIX + hmac.new(secret.encode(), body, "sha256").hexdigest()
    return hmac.compare_digest(signature.encode(errors="replace"), expected.encode())


def _after(scheme: str, authorization: str) -> str | None:
    found, _, rest = authorization.partition(" ")
    return rest.strip() if found.lower() == scheme else None


def _password(authorization: str) -> str | None:
    """The password of HTTP Basic, None for anything else."""
    try:
        login = base64.b64decode(_after("basic", authorization) or "", validate=True).decode()
    except ValueError:
        return None
    _, colon, password = login.partition(":")
    return password if colon else None


_keys: list[jwt.PyJWKClient] = []


def _google_keys() -> jwt.PyJWKClient:
    """Google's keys, fetched when a token names one that is not known, and after an hour."""
    import jwt

    if not _keys:
        _keys.append(jwt.PyJWKClient(GOOGLE_KEYS, lifespan=3600, timeout=_KEYS_PATIENCE_SECONDS))
    return _keys[0]
