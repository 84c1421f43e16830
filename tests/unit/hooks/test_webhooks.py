"""Who may send to a webhook: by a secret, by a signature, or by a token of Google; and what a connection must have."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
import pytest
from airflow.models import Connection
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from registry_sync.domain.push_notifications import PushedTag, WebhookKind
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.errors import ConfigurationError
from registry_sync.hooks import webhooks
from registry_sync.hooks.webhooks import Webhook, read_webhook
from registry_sync.provider import WEBHOOK_FIELDS

SECRET = "a secret of enough characters"
BODY = b'{"events": []}'


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize("kind", [kind for kind in WebhookKind if kind is not WebhookKind.GITHUB])
@pytest.mark.parametrize(
    ("authorization", "given", "is_accepted"),
    [
        (f"Bearer {SECRET}", None, True),
        (f"bearer {SECRET}", None, True),
        (SECRET, None, True),
        (basic("any", SECRET), None, True),
        ("", SECRET, True),
        ("Bearer other", SECRET, True),
        ("", None, False),
        ("Bearer ", "", False),
        (f"Bearer {SECRET}x", f"{SECRET}x", False),
        (basic(SECRET, ""), None, False),
        ("Basic not base64", None, False),
        ("Basic ä", None, False),
        ("Bearer ä", "ä", False),
    ],
)
def test_the_secret_is_sent_in_a_header_or_in_the_url(
    kind: WebhookKind, authorization: str, given: str | None, is_accepted: bool
) -> None:
    webhook = Webhook("hook", kind, SECRET)
    assert webhook.accepts({"authorization": authorization}, given, BODY) is is_accepted


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()}


def test_github_signs_the_body_and_the_secret_itself_is_not_taken() -> None:
    webhook = Webhook("hook", WebhookKind.GITHUB, SECRET)
    assert webhook.accepts(signed(BODY), None, BODY)
    for headers in (signed(BODY, "another secret that is long"), signed(BODY + b" "), {}, {"x-hub-signature-256": "ä"}):
        assert not webhook.accepts(headers, None, BODY)
    assert not webhook.accepts({"authorization": f"Bearer {SECRET}"}, SECRET, BODY)


class GoogleKeys:
    """Publishes the key that tokens are signed with."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        document = {"keys": [{**RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True), "kid": "1", "use": "sig"}]}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/certs"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def token(self, key: Any = None, kid: str = "1", **changed: Any) -> dict[str, str]:
        now = int(time.time())
        claims = {
            "iss": "https://accounts.google.com",
            "aud": "https://airflow.example/hook",
            "iat": now,
            "exp": now + 600,
            "email": "push@project.iam.example",
            "email_verified": True,
            **changed,
        }
        token = jwt.encode(claims, key or self._key, algorithm="RS256", headers={"kid": kid})
        return {"authorization": f"Bearer {token}"}


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleKeys]:
    keys = GoogleKeys()
    monkeypatch.setattr(webhooks, "GOOGLE_KEYS", keys.url)
    monkeypatch.setattr(webhooks, "_keys", [])
    yield keys
    keys.close()


def test_google_signs_tokens_for_an_audience_of_an_account(google: GoogleKeys) -> None:
    audience, account = "https://airflow.example/hook", "push@project.iam.example"
    webhook = Webhook("hook", WebhookKind.GOOGLE, SECRET, audience=audience, service_account=account)
    assert webhook.accepts(google.token(), None, BODY)
    assert Webhook("hook", WebhookKind.GOOGLE, "", audience=audience).accepts(google.token(email="x"), None, BODY)
    refused = [
        google.token(aud="https://other.example"),
        google.token(iss="https://other.example"),
        google.token(exp=int(time.time()) - 10),
        google.token(email="other@project.iam.example"),
        google.token(email_verified=False),
        google.token(key=rsa.generate_private_key(65537, 2048)),
        google.token(kid="2"),
        {"authorization": "Bearer none"},
        {"authorization": f"Bearer {SECRET}"},
        {},
    ]
    assert [webhook.accepts(headers, SECRET, BODY) for headers in refused] == [False] * len(refused)


def test_keys_that_cannot_be_read_are_no_wrong_token(google: GoogleKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "GOOGLE_KEYS", "http://127.0.0.1:1/certs")
    webhook = Webhook("hook", WebhookKind.GOOGLE, "", audience="x")
    with pytest.raises(ConfigurationError, match="Google's keys cannot be read"):
        webhook.accepts(google.token(), None, BODY)


def connection(extra: Any, **fields: Any) -> Connection:
    given = {"password": SECRET, **fields}
    return Connection(conn_id="hook", conn_type="registry_webhook", extra=json.dumps(extra), **given)


def test_a_connection_is_read_whole() -> None:
    extra = {"kind": "google", "repositories": "team/*, other", "audience": " a ", "service_account": "s"}
    made = read_webhook("hook", connection(extra, host="Registry.Example", port=5000))
    assert made == Webhook("hook", WebhookKind.GOOGLE, SECRET, "registry.example:5000", ("team/*", "other"), "a", "s")
    assert SECRET not in repr(made)
    assert set(extra) == set(WEBHOOK_FIELDS), "each field of the form is read, and no other"
    assert WEBHOOK_FIELDS["kind"]["schema"]["enum"] == [kind.value for kind in WebhookKind]


@pytest.mark.parametrize(
    ("extra", "fields", "message"),
    [
        ({}, {}, "choose a kind, one of distribution, docker_hub, quay, harbor, github, google"),
        ({"kind": "nexus"}, {}, "choose a kind"),
        ({"kind": "quay"}, {"password": "short"}, "at least 20 characters"),
        ({"kind": "quay"}, {"password": None}, "at least 20 characters"),
        ({"kind": "github", "audience": "x"}, {"password": None}, "at least 20 characters"),
        ({"kind": "quay", "repositories": ["team"]}, {}, "repositories in Extra is no text"),
    ],
)
def test_a_connection_that_cannot_be_used_says_what_to_do(
    extra: dict[str, Any], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_webhook("hook", connection(extra, **fields))


def test_a_webhook_may_be_for_some_repositories() -> None:
    pushed = PushedTag(None, RepositoryName("team/app"), TagName("1"))
    for globs, is_wanted in (((), True), (("team/*",), True), (("app", "team/app"), True), (("team",), False)):
        assert Webhook("hook", WebhookKind.QUAY, SECRET, repositories=globs).wants(pushed) is is_wanted
