"""What tests have printed takes no memory once they have passed."""

from __future__ import annotations

import pytest


def test_something_is_printed() -> None:
    print("of which nothing is kept")


def test_nothing_is_kept_of_what_other_tests_printed(request: pytest.FixtureRequest) -> None:
    if {"P", "A"}.intersection(request.config.option.reportchars):
        pytest.skip("it is shown at the end")
    others = [item for item in request.session.items if item is not request.node]
    assert [item.nodeid for item in others if item._report_sections] == []
