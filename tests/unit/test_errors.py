"""The error tree: drawn as it is, safe to pickle, and silent about secrets."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from registry_sync import errors
from registry_sync.errors import NotFound, RateLimited, RegistryError, RegistrySyncError, redact_url

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, RegistrySyncError) and value is not RegistrySyncError
]


def drawn() -> dict[str, str]:
    """Class to parent as the drawing in the module's docstring says."""
    parents, above = {}, ["RegistrySyncError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:│   |    )*)[├└]── (\w+)", line):
            depth = len(found[1]) // 4 + 1
            parents[found[2]] = above[depth - 1]
            above[depth:] = [found[2]]
    return parents


def test_the_drawing_shows_every_error_below_its_parent() -> None:
    assert drawn() == {cls.__name__: cls.__mro__[1].__name__ for cls in CLASSES}


def test_the_drawing_says_of_each_whether_it_is_temporary() -> None:
    told = {
        found[1]
        for line in (errors.__doc__ or "").splitlines()
        if (found := re.search(r"── (\w+) .*temporary$", line)) is not None
    }
    assert told == {cls.__name__ for cls in CLASSES if cls("x").is_temporary}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickling_with_all_it_says(cls: type[RegistrySyncError]) -> None:
    error = cls("what happened")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_what_a_registry_said_survives_pickling() -> None:
    error = NotFound("gone", kind="blob", host="r.example", status=404, codes=("BLOB_UNKNOWN",), method="GET")
    again = pickle.loads(pickle.dumps(error))
    assert (again.kind, again.host, again.status, again.codes, again.method) == (
        "blob",
        "r.example",
        404,
        ("BLOB_UNKNOWN",),
        "GET",
    )


@pytest.mark.parametrize(("status", "temporary"), [(404, False), (403, False), (408, True), (500, True), (503, True)])
def test_a_status_decides_whether_a_response_is_temporary(status: int, temporary: bool) -> None:
    assert RegistryError("x", status=status).is_temporary is temporary
    assert RateLimited("x").is_temporary


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@r.example:5000/v2/a?sig=secret#secret", "https://r.example:5000/v2/a"),
        ("https://[::1]:5000/v2/?token=secret", "https://[::1]:5000/v2/"),
        ("/v2/a/tags/list?last=secret", "/v2/a/tags/list"),
        ("https://r.example:notaport/secret", "<unreadable URL>"),
        ("user:secret@r.example/x", "<unreadable URL>"),
        ("https://user:12/secret@r.example", "<unreadable URL>"),
        ("https://r.example/@scope/app", "https://r.example/@scope/app"),
    ],
)
def test_a_url_is_kept_without_what_it_hides(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert "secret" not in str(RegistryError("x", url=url).url)
