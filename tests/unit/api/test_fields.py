"""Kinds of fields of the API's documents."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from registry_sync.api.fields import Flag, GivenDocument, Name, split_list, whole_number
from registry_sync.pulp.documents import Timestamp, shown_timestamp

Size: Any = whole_number(1, 100)


class Given(GivenDocument):
    only_in_responses: ClassVar[frozenset[str]] = frozenset({"pulp_href"})

    name: Name = "given"
    flag: Flag = True
    size: Size = 20


class Shown(GivenDocument):
    timestamp: Timestamp


@pytest.mark.parametrize(
    ("sent", "read"), [(True, True), ("true", True), ("True", True), ("FALSE", False), (False, False)]
)
def test_a_flag_is_true_or_false_or_its_text(sent: object, read: bool) -> None:
    assert Given.model_validate({"flag": sent}).flag is read


@pytest.mark.parametrize("sent", [0, 1, "1", "yes", "", None, [], 1.0])
def test_a_flag_is_nothing_else(sent: object) -> None:
    with pytest.raises(ValidationError):
        Given.model_validate({"flag": sent})


@pytest.mark.parametrize(("sent", "read"), [(1, 1), ("100", 100), ("007", 7)])
def test_a_number_is_one_or_its_text(sent: object, read: int) -> None:
    assert Given.model_validate({"size": sent}).size == read


@pytest.mark.parametrize("sent", [0, 101, "101", "-1", "1.0", 1.0, True, "٣", "9" * 5000, None])
def test_a_number_out_of_its_bounds_or_of_another_kind_is_refused(sent: object) -> None:
    with pytest.raises(ValidationError):
        Given.model_validate({"size": sent})


def test_a_name_loses_the_blanks_around_it() -> None:
    assert Given.model_validate({"name": " codzo "}).name == "codzo"


def test_unknown_fields_are_refused_and_those_of_responses_mean_nothing() -> None:
    assert Given.model_validate({"pulp_href": "/anything"}) == Given()
    with pytest.raises(ValidationError, match="nonsense"):
        Given.model_validate({"nonsense": 1})


def test_an_error_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(ValidationError) as raised:
        Given.model_validate({"name": ["hunter22"]})
    assert "hunter22" not in str(raised.value)


def test_a_timestamp_is_shown_in_utc_with_six_digits() -> None:
    timestamp = datetime(2019, 9, 5, 16, 29, 43, tzinfo=timezone(timedelta(hours=2)))
    assert shown_timestamp(timestamp) == "2019-09-05T14:29:43.000000Z"
    assert Shown(timestamp=timestamp).model_dump() == {"timestamp": "2019-09-05T14:29:43.000000Z"}


@pytest.mark.parametrize(("text", "entries"), [(None, None), ("", ()), (" , ", ()), ("a, b,,c", ("a", "b", "c"))])
def test_a_list_is_a_text_with_commas(text: str | None, entries: tuple[str, ...] | None) -> None:
    assert split_list(text) == entries
