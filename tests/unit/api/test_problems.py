"""The table from errors to HTTP status."""

from __future__ import annotations

import inspect

import pytest

from registry_sync import errors
from registry_sync.api.problems import STATUSES, status_of

EVERY_ERROR = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.RegistrySyncError) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_every_error_has_a_status_that_says_whose_it_is(kind: type[errors.RegistrySyncError]) -> None:
    status = status_of(kind("message"))
    assert 400 <= status < 600
    if issubclass(kind, errors.InvalidReference):
        assert status == 400
    if kind.is_temporary:
        assert status in (409, 502, 503)


def test_a_row_of_the_table_is_not_there_for_nothing() -> None:
    """A row that says what the row above it in the tree says already is left out."""
    for kind, status in STATUSES.items():
        above = [STATUSES[parent] for parent in kind.__mro__[1:] if parent in STATUSES]
        assert kind is errors.RegistrySyncError or status != above[0], kind
