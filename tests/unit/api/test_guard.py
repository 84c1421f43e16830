"""The guard before the API, on its own."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from registry_sync.api.basic_logins import AIRFLOW_APP, BasicLogins
from registry_sync.api.guard import MAX_BODY_BYTES, Guard
from registry_sync.users.airflow_logins import LoginUnavailable
from registry_sync.users.checked_logins import CheckedLogins
from registry_sync.users.login_limits import PER_ACCOUNT_AND_ADDRESS
from registry_sync.users.shared_limits import LoginLimits

BEARER = {"authorization": "Bearer x"}
PASSED = 200


def _no_logins(_airflow: object) -> CheckedLogins[str]:
    raise AssertionError("nobody logs in here")


def ask(headers: dict[str, str], *, body: bytes = b"", kind: str = "http") -> int:
    """The status of a request for which the app behind the guard would respond with 200."""
    statuses: list[int] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        statuses.append(PASSED)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": "POST", "path": "/", "scheme": "http", "headers": lines}
    own = frozenset({"https://airflow.example"})
    guard = Guard(app, cookie_name="_token", own_origins=lambda: own, logins=BasicLogins(_no_logins))
    asyncio.run(guard(scope, receive, send))  # type: ignore[arg-type]
    return statuses[0]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("airflow.example", "https://airflow.example"),
        ("10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ('x"><b>', ""),
        ("x/y", ""),
        ("user@x", ""),
        ("", ""),
    ],
)
def test_links_begin_with_the_host_that_was_asked_if_it_is_one(host: str, origin: str) -> None:
    own = frozenset({"https://airflow.example"})
    guard = Guard(None, cookie_name="_token", own_origins=lambda: own, logins=BasicLogins(_no_logins))  # type: ignore[arg-type]
    scope = {"scheme": "http", "headers": [(b"host", host.encode())], "root_path": "/pulp"}
    assert guard._origin_of(scope) == origin


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Basic am9lOnB3"}, 403),  # not over TLS, and from nowhere
        ({"authorization": "Digest am9lOnB3"}, 401),
        ({"cookie": "other=1"}, 401),
        ({"cookie": "_token=x"}, PASSED),
        ({"cookie": "a=b; _token=x"}, PASSED),
        ({"authorization": "bearer x"}, PASSED),
    ],
)
def test_a_request_has_a_credential(headers: dict[str, str], status: int) -> None:
    assert ask(headers) == status


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://here.example:8080", "here.example:8080", PASSED),
        ("http://here.example", "here.example", PASSED),
        ("https://here.example", "here.example:443", PASSED),
        ("https://HERE.example", "here.example", PASSED),
        ("https://airflow.example", "internal:8080", PASSED),
        ("https://airflow.example:8443", "internal:8080", 403),
        ("http://here.example:8081", "here.example:8080", 403),
        ("https://here.example.evil.example", "here.example", 403),
        ("https://evil.example", "here.example", 403),
        ("null", "here.example", 403),
        ("null", "", 403),
        ("", "here.example", 403),
        ("http://[", "here.example", 403),
        ("http://here.example:port", "here.example", 403),
    ],
)
def test_an_origin_is_compared_by_host_and_port(origin: str, host: str, status: int) -> None:
    assert ask({**BEARER, "origin": origin, "host": host}) == status


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_without_an_origin_the_browser_s_word_for_the_site_counts(site: str, status: int) -> None:
    assert ask({**BEARER, "sec-fetch-site": site}) == status


@pytest.mark.parametrize("length", ["-1", "many", "1e9", "", "9" * 5000])
def test_a_length_that_is_none_is_ignored_and_the_body_counted(length: str) -> None:
    assert ask({**BEARER, "content-length": length}) == PASSED


def test_a_body_may_have_the_largest_size_and_no_byte_more() -> None:
    assert ask({**BEARER, "content-length": str(MAX_BODY_BYTES)}, body=b"a" * MAX_BODY_BYTES) == PASSED
    assert ask({**BEARER, "content-length": str(MAX_BODY_BYTES + 1)}) == 400


def test_what_is_no_request_passes() -> None:
    assert ask({}, kind="lifespan") == PASSED


# -- HTTP Basic --------------------------------------------------------------------------------------------------------

ANNA = "anna:p\u00e4ss:word"
TLS = {"scheme": "https", "client": ("203.0.113.9", 1)}


class Door:
    """A guard whose Airflow knows Anna; ``seen`` are the credentials that reach the routes."""

    def __init__(self, *, is_down: bool = False) -> None:
        self.seen: list[str] = []
        self.asked: list[str] = []
        self.is_down = is_down
        logins = BasicLogins(lambda _airflow: CheckedLogins(self._login, LoginLimits()))
        self._guard = Guard(self._app, cookie_name="_token", own_origins=frozenset, logins=logins)

    async def _login(self, name: str, password: str) -> str | None:
        self.asked.append(name)
        if self.is_down:
            raise LoginUnavailable("Airflow is down")
        return "a token" if f"{name}:{password}" == ANNA else None

    async def _app(self, scope: Any, _receive: Any, send: Any) -> None:
        self.seen.append(dict(scope["headers"])[b"authorization"].decode())
        length = (b"content-length", b"5")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": b"hello"})

    def knock(self, login: str, *, method: str = "GET", **scope: Any) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a request with that login; ``login`` without a colon is sent as it is."""
        sent: list[dict[str, Any]] = []
        value = base64.b64encode(login.encode()).decode() if ":" in login else login
        headers = [(b"authorization", f"Basic {value}".encode())]
        headers += [(name.encode(), text.encode()) for name, text in scope.pop("headers", {}).items()]

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b""}

        full = {"type": "http", "method": method, "path": "/", "headers": headers, AIRFLOW_APP: object(), **scope}
        asyncio.run(self._guard(full, receive, send))  # type: ignore[arg-type]
        found = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


def test_a_right_login_reaches_the_routes_as_a_token_of_airflow() -> None:
    door = Door()
    assert [door.knock(ANNA, **TLS)[0] for _ in range(3)] == [200, 200, 200]
    assert door.seen == ["Bearer a token"] * 3
    assert door.asked == ["anna"], "remembered for a short time"


@pytest.mark.parametrize(
    "login", ["anna:wrong", "nobody:x", "anna:", ":x", "nonsense", f"{'a' * 256}:x", "YW5uYQ==", "\x00:\x00"]
)
def test_all_wrong_logins_have_one_response(login: str) -> None:
    door = Door()
    status, headers, body = door.knock(login, **TLS)
    assert (status, body) == (401, b'{"detail":"Wrong name or password."}')
    assert headers["www-authenticate"] == 'Bearer, Basic realm="registry-sync", charset="UTF-8"'
    assert door.seen == []


def test_a_page_is_not_asked_for_a_password() -> None:
    assert Door().knock("a:b", headers={"sec-fetch-mode": "cors"}, **TLS)[1]["www-authenticate"] == "Bearer"


def test_guessing_is_limited_and_a_known_login_is_not() -> None:
    door = Door()
    assert door.knock(ANNA, **TLS)[0] == 200
    statuses = [door.knock("anna:wrong", **TLS)[0] for _ in range(PER_ACCOUNT_AND_ADDRESS.burst + 1)]
    assert statuses == [401] * PER_ACCOUNT_AND_ADDRESS.burst + [429]
    status, headers, _ = door.knock("anna:wrong", **TLS)
    assert (status, int(headers["retry-after"]) > 0) == (429, True)
    assert door.knock(ANNA, **TLS)[0] == 200
    assert door.knock("anna:wrong", scheme="https", client=("203.0.113.77", 1))[0] == 401, "another address"


def test_an_airflow_that_cannot_be_asked_is_no_failure_of_the_user(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(is_down=True)
    found = [door.knock(ANNA, **TLS)[0] for _ in range(PER_ACCOUNT_AND_ADDRESS.burst + 3)]
    assert set(found) == {503}
    assert "anna" in caplog.text
    assert "word" not in caplog.text


@pytest.mark.parametrize(
    ("scope", "headers", "status"),
    [
        ({"scheme": "https", "client": ("203.0.113.9", 1)}, {}, 200),
        ({"scheme": "http", "client": ("127.0.0.1", 1)}, {}, 200),
        ({"scheme": "http", "client": ("::1", 1)}, {}, 200),
        ({"scheme": "http", "client": ("203.0.113.9", 1)}, {}, 403),
        ({"scheme": "http", "client": None}, {}, 403),
        # A proxy on this machine, which nobody has named: whoever stands behind it may speak plain http to it.
        ({"scheme": "http", "client": ("127.0.0.1", 1)}, {"x-forwarded-for": "203.0.113.9"}, 403),
        ({"scheme": "http", "client": ("127.0.0.1", 1)}, {"x-forwarded-proto": "https"}, 403),
        ({"scheme": "http", "client": ("10.0.0.1", 1)}, {"x-forwarded-proto": "https"}, 200),
        ({"scheme": "http", "client": ("10.0.0.1", 1)}, {"x-forwarded-proto": "http"}, 403),
        ({"scheme": "http", "client": ("10.0.0.1", 1)}, {"x-forwarded-for": "127.0.0.1"}, 200),
        ({"scheme": "http", "client": ("10.0.0.2", 1)}, {"x-forwarded-proto": "https"}, 403),
    ],
)
def test_basic_is_for_tls_and_loopback(
    monkeypatch: pytest.MonkeyPatch, scope: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__PULL_TRUSTED_PROXIES", "10.0.0.1")
    door = Door()
    assert door.knock(ANNA, headers=headers, **scope)[0] == status
    assert (door.asked == []) == (status == 403)
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__REST_BASIC_OVER_HTTP", "True")
    assert Door().knock(ANNA, headers=headers, **scope)[0] == 200


def test_head_is_get_without_the_body() -> None:
    door = Door()
    status, headers, body = door.knock(ANNA, method="HEAD", **TLS)
    assert (status, headers["content-length"], body) == (200, "5", b"")


def test_every_response_says_what_browsers_may_do_with_it() -> None:
    for login in (ANNA, "anna:wrong"):
        headers = Door().knock(login, **TLS)[1]
        assert headers["cache-control"] == "private, no-cache"
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
        assert {"Authorization", "Cookie"} <= set(headers["vary"].split(", "))
