"""Yes and no as people write them; counts, sizes and durations in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import registry_sync
from registry_sync.domain.quantities import format_bytes, format_count, format_duration, parse_choice, parse_flag
from registry_sync.domain.records import SyncMode
from registry_sync.errors import ConfigurationError


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.0 KiB"),
        (340 * 1024 * 1024, "340 MiB"),
        (999.9 * 1024, "1000 KiB"),
        (1 << 40, "1.0 TiB"),
        (5000 * (1 << 40), "5000 TiB"),
    ],
)
def test_bytes_read_in_binary_units_with_few_digits(size: float, text: str) -> None:
    assert format_bytes(size) == text


def test_one_is_singular_and_thousands_are_grouped() -> None:
    assert [format_count(count, "tag") for count in (0, 1, 3000)] == ["0 tags", "1 tag", "3,000 tags"]


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "repository", "1 repository"),
        (2, "repository", "2 repositories"),
        (2, "key", "2 keys"),
        (3, "failed task", "3 failed tasks"),
        (2, "match", "2 matches"),
        (0, "index", "0 indexes"),
    ],
)
def test_a_noun_follows_its_count(count: int, noun: str, text: str) -> None:
    assert format_count(count, noun) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.1, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (42, "42 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (7530, "2 h 5 min"),
        (5_194_652, "60 d 2 h"),
    ],
)
def test_a_duration_reads_as_a_person_says_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (True, True), (False, False), (None, None), ("true", True), ("True", True), (" FALSE ", False), ("", None),
        ("  ", None),
    ],
)  # fmt: skip
def test_a_flag_is_read_wherever_people_write_one(given: object, expected: bool | None) -> None:
    assert parse_flag(given, "preview") is expected


@pytest.mark.parametrize("given", ["yes", "1", 1, 0, "on", "none", "truefalse", [], ["true"], "t"])
def test_anything_else_is_no_flag_and_the_error_says_of_what(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"preview is .*; it is true or false"):
        parse_flag(given, "preview")


def test_a_choice_is_one_of_the_values_of_an_enum() -> None:
    assert parse_choice(SyncMode, "mirror", "mode") is SyncMode.MIRROR
    with pytest.raises(ConfigurationError, match="mode is 'Mirror'; it is one of mirror, additive"):
        parse_choice(SyncMode, "Mirror", "mode")


def test_nothing_else_reads_yes_and_no() -> None:
    """Five readers once took five sets of words."""
    package = Path(registry_sync.__file__).parent
    words = re.compile(r"""["']true["'], *["']false["']""")
    readers = {path.name for path in package.rglob("*.py") if words.search(path.read_text())}
    assert readers == {"quantities.py", "fields.py"}, "the second names them in the OpenAPI document"
