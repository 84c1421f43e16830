"""Messages through Airflow's notifiers, by the type of a connection or the notifier that it names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from airflow.sdk import BaseNotifier

from registry_sync.domain.mirror_states import MirrorState, NotifiedOf
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.notifications import send_message

STATE = MirrorState("team/app", NotifiedOf.FAILED, "NotFound", "NotFound: {{ 7 * 7 }} <b>{% raise %}")
SENT: list[tuple[str | None, str, str]] = []


class KeptNotifier(BaseNotifier):
    """Keeps what it is to send, after rendering it as all notifiers do."""

    template_fields: Sequence[str] = ("title", "body")

    def __init__(self, *, channel: str, kept_conn_id: str, body: str, title: str | None = None) -> None:
        super().__init__()
        self.channel, self.kept_conn_id, self.body, self.title = channel, kept_conn_id, body, title

    def notify(self, context: Any) -> None:
        SENT.append((self.title, self.body, f"{self.kept_conn_id} {self.channel}"))


class TextlessNotifier(BaseNotifier):
    """Can say nothing of its own."""


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    SENT.clear()


def connect(monkeypatch: pytest.MonkeyPatch, conn_type: str, **extra: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps({"conn_type": conn_type, "extra": extra}))


def test_a_notifier_that_the_connection_names_gets_the_text_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, "generic", notifier=f"{__name__}.KeptNotifier", notifier_arguments={"channel": "#mirrors"})
    send_message("team", [STATE], {})
    assert [("registry-sync: team/app failed", STATE.detail, "team #mirrors")] == SENT


@pytest.mark.parametrize(
    ("conn_type", "extra", "said"),
    [
        ("generic", {}, "names no notifier"),
        ("generic", {"notifier": "no.such.Notifier"}, "install the provider"),
        ("generic", {"notifier": f"{__name__}.KeptNotifier"}, "as notifier_arguments"),
        ("generic", {"notifier": f"{__name__}.TextlessNotifier"}, "cannot be given a text"),
        ("smtp", {}, "as notifier_arguments"),
        ("smtp", {"notifier_arguments": "to"}, "must be a JSON object"),
    ],
)
def test_what_cannot_be_used_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, conn_type: str, extra: dict[str, Any], said: str
) -> None:
    connect(monkeypatch, conn_type, **extra)
    with pytest.raises(ConfigurationError, match=said):
        send_message("team", [STATE], {})


def test_a_missing_connection_is_named() -> None:
    with pytest.raises(ConfigurationError, match="there is no Airflow connection 'absent'"):
        send_message("absent", [STATE], {})
