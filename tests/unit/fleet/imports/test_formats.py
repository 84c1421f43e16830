"""Recognising a file's format, and what every import has in common."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from registry_sync.errors import ConfigurationError
from registry_sync.fleet.imports.formats import FORMATS, import_fleet
from registry_sync.fleet.yaml_text import MAX_BYTES

from .conftest import Import


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "theirs.yaml:2: this is not YAML"),
        ("3", "this is no map"),
        ("a: b", "has no keys of a known format: say which it is"),
        ("{version: 1, sync: [], quay.io: {images: {}}}", "has keys of skopeo and regsync"),
    ],
)
def test_what_is_no_known_file_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        import_fleet(text.encode(), "theirs.yaml")


def test_a_file_that_is_too_large_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="at most 16,777,216 are read"):
        import_fleet(b"#" * (MAX_BYTES + 1), "theirs.yaml")


@pytest.mark.parametrize("text", ["{version: 1, sync: }", "{version: 1, sync: [1, [], {}], creds: x, defaults: [2]}"])
def test_a_file_without_a_mirror_is_a_document_without_one(imported: Import, text: str) -> None:
    made = imported(text)
    assert made.fleet.mirrors == ()
    assert "no mirror could be made of this file" in made.said()


_SAMPLES = """
x 1.10 a/b quay.io/a/b:1 image ^a|b$ ( >=1 ~1.x 1h @daily @every_1h ${X} {{.X}} * {a,b} [!a] [^a name tag
https://quay.io oci://q.io/a A! @ -1 \\ $
"""
_TEXTS = some.sampled_from(_SAMPLES.split())
_ONE = some.one_of(_TEXTS, some.none(), some.integers(), some.text("aA1.-_*^$", max_size=4))
_MANY = some.lists(_ONE, max_size=3)
_RULES = some.fixed_dictionaries({}, optional=dict.fromkeys(("allow", "deny", "semverRange", "regex", "semver"), _MANY))


def _entries(*keys: str) -> some.SearchStrategy[list[dict[str, Any]]]:
    return some.lists(some.fixed_dictionaries({}, optional=dict.fromkeys(keys, _ONE | _MANY | _RULES)), max_size=3)


_SECTION = ("images", "images-by-tag-regex", "images-by-semver")
_ENTRY = ("source", "target", "type", "tags", "platform", "schedule", "interval")
_FILES = {
    "skopeo": some.fixed_dictionaries(
        {},
        optional={key: some.dictionaries(_TEXTS, _ONE | _MANY) for key in _SECTION},
    ).map(lambda section: {"quay.io": section}),
    "regsync": _entries(*_ENTRY).map(lambda found: {"sync": found}),
    "zot": _entries("prefix", "destination", "stripPrefix", "tags").map(
        lambda found: {"extensions": {"sync": {"registries": [{"urls": ["quay.io"], "content": found}]}}}
    ),
    "oc-mirror": _entries("name", "targetTag", "targetRepo").map(lambda found: {"mirror": {"additionalImages": found}}),
    "harbor": _entries("type", "value", "decoration").map(
        lambda found: {
            "src_registry": {"url": "https://quay.io"},
            "filters": [{"type": "name", "value": "a/b"}, *found],
        }
    ),
    "quay": _entries("external_reference", "root_rule", "sync_interval", "architecture_filter"),
    "dregsy": _entries("from", "to", "tags", "platform").map(
        lambda found: {
            "tasks": [{"source": {"registry": "quay.io"}, "target": {"registry": "r.io"}, "mappings": found}]
        }
    ),
    "image-syncer": some.dictionaries(_TEXTS, _ONE | _MANY),
}


@pytest.mark.parametrize("of", _FILES)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.data())
def test_whatever_the_values_are_the_document_loads(imported: Import, of: str, data: some.DataObject) -> None:
    imported(json.dumps(data.draw(_FILES[of])), of, X="x.example")


@pytest.mark.parametrize("of", FORMATS)
@pytest.mark.parametrize(
    "text",
    [
        "{quay.io: {images: {a: {b: c}, d: [[e]], f: [g]}, images-by-semver: [1], credentials: 3}}",
        "{extensions: {sync: {registries: [{urls: [{}], content: 3}, {urls: [x], content: [{prefix: [a]}, {}]}]}}}",
        "{version: 1, sync: [{source: [a]}, {source: a, target: {}}, {source: A!, target: B, type: image, tags: 3}]}",
        "{mirror: {}}",
    ],
)
def test_any_shape_is_read_to_findings(imported: Import, of: str, text: str) -> None:
    assert imported(text, of).warned() != []


def test_a_key_that_stands_twice_is_said_once_for_each_line(imported: Import) -> None:
    made = imported(
        """
        quay.io:
          images:
            a/b: [x]
            a/b: [y]
          tls-verify: true
          tls-verify: true
        ghcr.io: {images: {c/d: }}
        ghcr.io: {images: {c/e: }}
        """
    )
    assert made.options("a/b") == {"include_tags": ["y"]}
    repeated = [said for said in made.warned() if "stands there more than once; the last one is read" in said]
    assert [said.partition(" the key ")[2].partition(" ")[0] for said in repeated] == [
        "'a/b'",
        "'tls-verify'",
        "'ghcr.io'",
    ]


def test_keys_that_all_mirrors_share_are_defaults(imported: Import) -> None:
    text = "{version: 1, defaults: {interval: 1h}, sync: [%s]}" % ", ".join(  # noqa: UP031  # braces of YAML
        f"{{source: quay.io/a/{name}, target: r.io/a/{name}, type: repository}}" for name in "bc"
    )
    made = imported(text)
    assert "defaults: {mode: additive, schedule: 1h, include_referrers: false}" in made.result.text
    assert "- {source: quay.io/a/b}" in made.result.text


@pytest.mark.slow
def test_thousands_of_images_fold_quickly_into_few_mirrors(imported: Import) -> None:
    entries = "".join(
        f"- {{source: 'quay.io/a/r{n % 20}:v{n}', target: 'r{n % 3}.io/a/r{n % 20}:v{n}', type: image}}\n"
        for n in range(2000)
    )
    made = imported(f"version: 1\ndefaults: {{interval: 1h}}\nsync:\n{entries}")
    assert len(made.fleet.documents) == 20
    assert len(made.result.findings) == 5
