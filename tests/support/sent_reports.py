"""What a process of tests tells the one that started it: what comes to light there, and no more.

Of each test xdist sends that it begins and ends, and three reports: of its preparation, its call and its end. What is
sent is written, read and handed to every plugin again, which takes longer than most tests do. Nothing shows that a
preparation has passed, unless a list of durations, a file of results or the output of what passed is asked for.
"""

from __future__ import annotations

from typing import Any

import pytest

#: Events that only tell a terminal that names tests one by one which it is about to.
_ANNOUNCEMENTS = ("logstart", "logfinish")


def send_less(config: pytest.Config) -> None:
    """From now on, in a process that xdist started, unless an option shows more than dots, failures and counts."""
    if not hasattr(config, "workerinput") or shows_all(config.option):
        return
    sender = next(plugin for plugin in config.pluginmanager.get_plugins() if hasattr(plugin, "sendevent"))
    send = sender.sendevent

    def send_what_is_shown(name: str, **said: Any) -> None:
        if name in _ANNOUNCEMENTS:
            return
        if name == "testreport" and said["data"]["outcome"] == "passed":
            if said["data"]["when"] != "call":
                return
            said["data"]["keywords"] = {}  # which only say how to fold what was skipped
        send(name, **said)

    sender.sendevent = send_what_is_shown


def shows_all(option: Any) -> bool:
    """Whether something is shown of every report, or of every test by its name."""
    asked = option.verbose > 0 or option.durations is not None or option.xmlpath
    return bool(asked or {"P", "A"}.intersection(option.reportchars))
