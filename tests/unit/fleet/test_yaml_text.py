"""YAML is read as text with places, within bounds, whatever a file says."""

from __future__ import annotations

from typing import Any

import pytest

from registry_sync.fleet import yaml_text
from registry_sync.fleet.yaml_text import MAX_BYTES, MAX_DEPTH, Entries, Fields, Misread, Place, Scalar, parse_yaml


def plain(value: Any) -> Any:
    """A value without its places."""
    if isinstance(value, Fields):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, Entries):
        return [plain(entry) for entry in value]
    return value if value is None else str(value)


def read(text: str) -> Any:
    return parse_yaml(text.encode(), "f.yaml")


def refused(text: str | bytes) -> tuple[int, str]:
    with pytest.raises(Misread) as caught:
        parse_yaml(text if isinstance(text, bytes) else text.encode(), "f.yaml")
    assert caught.value.place.file == "f.yaml"
    return caught.value.place.line, caught.value.message


@pytest.mark.parametrize(
    "tag",
    [
        "1.10",
        "1_20200514",
        "012",
        "2024-01-01",
        "on",
        "0x1f",
        "1e3",
        "true",
        "3.10",
        ".5",
        "1:30",
        "=",
        "yes",
        "190:20:30",
    ],
)
def test_an_unquoted_tag_stays_as_it_is_written(tag: str) -> None:
    assert plain(read(f"tags: [{tag}, '{tag}', \"{tag}\"]")) == {"tags": [tag, tag, tag]}
    assert plain(read(f"{tag}: a")) == {tag: "a"}


@pytest.mark.parametrize("written", ["", "~", "null", "Null", "NULL"])
def test_null_is_nothing_unless_it_is_quoted_or_a_key(written: str) -> None:
    assert read(f"a: {written}")["a"] is None
    assert read(f"a: '{written}'")["a"] == written
    if written:
        assert read(f"{written}: 1") == {written: "1"}


def test_each_value_has_its_line() -> None:
    top = read("a: 1\nb:\n  - x\n\n  - c: y\n    d: z\n")
    assert top.places == {"a": Place("f.yaml", 1), "b": Place("f.yaml", 2)}
    assert [place.line for place in top["b"].places] == [3, 5]
    assert top["b"][1].places["d"].line == 6


def test_maps_are_merged_and_what_stands_there_wins() -> None:
    text = "x-a: &a {p: 1, q: 2}\nx-b: &b {q: 3, r: 4}\nm: {<<: [*a, *b], p: 0}\nn: {<<: *a}\n'<<': 5\n"
    top = plain(read(text))
    assert top["m"] == {"p": "0", "q": "2", "r": "4"}
    assert top["n"] == {"p": "1", "q": "2"}
    assert top["<<"] == "5"


def test_a_repeated_key_is_kept_with_both_lines() -> None:
    top = read("a: 1\nb: 2\na: 3\n")
    assert top.repeated == [("a", Place("f.yaml", 3))]
    assert top.first["a"].line == 1


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: [1\nb: 2", 2, "not YAML"),
        ("a: 1\n\tb: 2", 2, "not YAML"),
        ("a: !!python/object:os.system x", 1, "type"),
        ("a: !!binary aGk=", 1, "type"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: *gone", 1, "not YAML"),
        ("? [a]\n: b", 1, "keys are text"),
        ("? {a: b}\n: c", 1, "keys are text"),
        ("a: &a [*a]", 1, "not YAML"),
        ("a: {<<: text}", 1, "<<"),
        ("a: \x01", 0, "not YAML"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_line(text: str, line: int, message: str) -> None:
    found, said = refused(text)
    assert message in said or "anchor" in said
    assert line in (0, found)


def test_bytes_that_are_no_text_are_said_with_their_line() -> None:
    assert refused(b"a: 1\nb: \xff\n") == (2, "this is not UTF-8 text")
    assert plain(parse_yaml(b"\xef\xbb\xbfa: 1", "f")) == {"a": "1"}


def test_a_file_is_bounded_in_size_and_depth() -> None:
    assert "bytes" in refused(b"#" * (MAX_BYTES + 1))[1]
    assert "nested" in refused("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))[1]
    assert "nested" in refused("[" * 100_000)[1]
    assert plain(read("[" * MAX_DEPTH + "]" * MAX_DEPTH)) is not None


def test_what_aliases_repeat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [f"x-{level}: &x{level} [{', '.join([f'*x{level - 1}'] * 10)}]" for level in range(1, 9)]
    assert "aliases" in refused("\n".join(["x-0: &x0 [a, b, c]", *levels]))[1]
    monkeypatch.setattr(yaml_text, "MAX_VALUES", 10)
    assert "aliases" in refused("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]")[1]


def test_an_empty_file_is_nothing() -> None:
    assert read("") is None
    assert read("# only a comment\n") is None


def test_a_scalar_knows_whether_it_is_quoted() -> None:
    top = read("[a, 'a', \"a\"]")
    assert [isinstance(entry, Scalar) and entry.is_plain for entry in top] == [True, False, False]
