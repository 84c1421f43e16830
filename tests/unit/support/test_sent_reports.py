"""What a process of tests sends of them: what is shown where they were started, each test counted once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from support.sent_reports import send_less, shows_all

QUIET = {"verbose": 0, "durations": None, "xmlpath": None, "reportchars": "a"}


class Sender:
    """Takes the place of what sends for xdist, and keeps what it is to send."""

    def __init__(self, options: dict[str, Any], **said: Any) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        plugins = SimpleNamespace(get_plugins=lambda: [object(), self])
        send_less(SimpleNamespace(option=SimpleNamespace(**options), pluginmanager=plugins, **said))  # type: ignore[arg-type]

    def sendevent(self, name: str, **said: Any) -> None:
        self.sent.append((name, said))

    def send_test(self, **outcomes: str) -> list[str]:
        """What of a test is sent when its reports have these outcomes."""
        self.sendevent("logstart", nodeid="test")
        for when in ("setup", "call", "teardown"):
            report = {"when": when, "outcome": outcomes.get(when, "passed"), "keywords": {"slow": 1}}
            self.sendevent("testreport", data=report)
        self.sendevent("logfinish", nodeid="test")
        self.sendevent("runtest_protocol_complete", item_index=1)
        return [said["data"]["when"] if name == "testreport" else name for name, said in self.sent]


def test_of_a_test_that_passes_its_call_is_sent_without_its_keywords() -> None:
    sender = Sender(QUIET, workerinput={})
    assert sender.send_test() == ["call", "runtest_protocol_complete"]
    assert sender.sent[0] == ("testreport", {"data": {"when": "call", "outcome": "passed", "keywords": {}}})


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
@pytest.mark.parametrize("when", ["setup", "call", "teardown"])
def test_whatever_has_not_passed_is_sent_whole(when: str, outcome: str) -> None:
    sender = Sender(QUIET, workerinput={})
    assert when in sender.send_test(**{when: outcome})
    sent = [said["data"] for name, said in sender.sent if name == "testreport"]
    assert {"when": when, "outcome": outcome, "keywords": {"slow": 1}} in sent


@pytest.mark.parametrize(
    "asked", [{"verbose": 1}, {"durations": 0}, {"xmlpath": "results.xml"}, {"reportchars": "P"}, {"reportchars": "A"}]
)
def test_everything_is_sent_where_an_option_shows_more(asked: dict[str, Any]) -> None:
    sent = Sender({**QUIET, **asked}, workerinput={}).send_test()
    assert sent == ["logstart", "setup", "call", "teardown", "logfinish", "runtest_protocol_complete"]


def test_a_process_that_no_other_started_sends_nothing_else_than_it_did() -> None:
    assert Sender(QUIET).sendevent.__func__ is Sender.sendevent  # type: ignore[attr-defined]


def test_the_tests_of_this_run_are_sent_so(request: pytest.FixtureRequest) -> None:
    """None, where one process runs all."""
    senders = [plugin for plugin in request.config.pluginmanager.get_plugins() if hasattr(plugin, "sendevent")]
    assert len(senders) == hasattr(request.config, "workerinput")
    sends_less = not shows_all(request.config.option)
    assert [("sendevent" in vars(sender)) for sender in senders] == [sends_less for _ in senders]
