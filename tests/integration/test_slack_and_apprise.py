"""Messages by Airflow's own providers for Slack and Apprise, received by an HTTP server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local_airflow.layout import CHECKOUT
from registry_sync.domain.mirror_states import MirrorState, NotifiedOf
from registry_sync.hooks.notifications import send_message
from support.recipients import Webhook, serving

PACKAGES = CHECKOUT / ".local/notifiers"
STATE = MirrorState("team/app", NotifiedOf.GUARD, "3", "3 tags would be removed {{ 7 * 7 }}")
SUBJECT, TEXT = "registry-sync: team/app was stopped by its guard", "3 tags would be removed {{ 7 * 7 }}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """A server that says ok as Slack does; the providers can be imported."""
    import airflow.providers

    assert (PACKAGES / "installed").exists(), "`make .local/notifiers/installed` installs the providers"
    monkeypatch.syspath_prepend(PACKAGES)
    path: Any = airflow.providers.__path__
    monkeypatch.setattr(airflow.providers, "__path__", [*path, str(PACKAGES / "airflow/providers")])
    made = Webhook()
    made.status, made.body = 200, b'{"ok": true}'
    with serving(made):
        yield made


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CHAT", json.dumps(fields))


def test_a_webhook_of_slack(server: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, conn_type="slackwebhook", host=server.url, password="/T0/B0/secret")
    send_message("chat", [STATE], {})
    (post,) = server.posted
    assert post["text"] == f"{SUBJECT}\n{TEXT}"


def test_a_channel_of_slack(server: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"base_url": f"{server.url}/api/", "notifier_arguments": {"channel": "#mirrors"}}
    connect(monkeypatch, conn_type="slack", password="xoxb-token", extra=extra)
    send_message("chat", [STATE], {})
    (post,) = server.posted
    assert (post["channel"], post["text"]) == ("#mirrors", f"{SUBJECT}\n{TEXT}")


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise imports it
def test_apprise(server: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    target = {"path": server.url.replace("http://", "json://"), "tag": "mirrors"}
    extra = {"config": [target], "notifier_arguments": {"tag": "mirrors"}}
    connect(monkeypatch, conn_type="apprise", extra=extra)
    send_message("chat", [STATE], {})
    (post,) = server.posted
    assert (post["title"], post["message"]) == (SUBJECT, TEXT)
