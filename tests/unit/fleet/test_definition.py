"""The definition of the file, its published schema and its reference page are one; options are those of a remote."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from documentation import mirrors_file
from registry_sync.domain.remote import OPTIONS
from registry_sync.fleet.definition import (
    GUARD,
    MIRROR,
    REMOTE,
    SHARED_KEYS,
    TAG_SET,
    json_schema,
)
from registry_sync.fleet.inheritance import tag_options

from .conftest import Declare

#: Options of a remote that the file says by keys of other names, or that it has not.
RENAMED = {"include_tags", "exclude_tags", "tag_sets", *(key.name for key in TAG_SET.keys)}
#: A certificate of a client is set over REST, with its key.
NOT_OF_THE_FILE = {"ssl_client_certificate"}

GOOD = [
    "version: 1",
    "version: '1'\nmirrors: []",
    "version: 1\nx-notes: {any: [thing]}\ndefaults: null\nmirrors: null",
    "version: 1\nmirrors:\n- source: quay.io/a/b\n  tags: {include: [1.10, latest, 3, true], x-why: {}}",
    "version: 1\nmirrors:\n- {source: quay.io/a/b, schedule: null, guard: {max_total_bytes: 200GB}, freshness: 1d12h}",
    "version: 1\nmirrors:\n- source: quay.io/a/b\n  schedule: {asset: 'oci://a/b'}\n  publish: a/b",
    "version: 1\nmirrors:\n- source: quay.io/a/b\n  notify: [{'on': [held], to: x}, {'on': failed, to: y}]",
    "version: 1\ngroups: {g: {batch: true, platforms: [linux/amd64]}}\nmirrors: [{source: quay.io/a/b, group: g}]",
    "version: 1\nmirrors:\n- {repository: a, remote: {url: 'https://quay.io', upstream_name: a/b, proxy_url: null}}",
]
BAD = [
    "mirrors: []",
    "version: 2",
    "version: 1\nmirors: []",
    "version: 1\nmirrors: {}",
    "version: 1\nmirrors: [{source: quay.io/a/b, shedule: 6h}]",
    "version: 1\nmirrors: [{source: quay.io/a/b, policy: later}]",
    "version: 1\nmirrors: [{source: quay.io/a/b, guard: {max_removed_share: 2}}]",
    "version: 1\nmirrors: [{source: quay.io/a/b, freshness: 36}]",
    "version: 1\nmirrors: [{source: quay.io/a/b, tags: {includes: [a]}}]",
    "version: 1\nmirrors: [{source: quay.io/a/b, notify: [{'on': held}]}]",
    "version: 1\nmirrors: [{source: quay.io/a/b, enabled: 'maybe'}]",
    "version: 1\nmirrors: [{source: quay.io/a/b, retain: {versions: 0}}]",
    "version: 1\ngroups: {g: {batch: sometimes}}",
]


def test_what_is_published_is_what_the_definition_says() -> None:
    message = "run python -m documentation.mirrors_file"
    assert mirrors_file.SCHEMA.read_text(encoding="utf-8") == mirrors_file.schema_text(), message
    assert mirrors_file.PAGE.read_text(encoding="utf-8") == mirrors_file.page_text(), message


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads(mirrors_file.schema_text()) == json_schema()


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_and_the_reader_accept_the_same(declare: Declare, text: str) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(text))
    assert declare(text).mistakes == ()


@pytest.mark.parametrize("text", BAD)
def test_the_schema_and_the_reader_refuse_the_same(declare: Declare, text: str) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(yaml.safe_load(text))
    assert declare(text).mistakes


def test_every_option_of_a_remote_can_be_declared() -> None:
    keys = {key.name for key in (*SHARED_KEYS, *REMOTE.keys, *GUARD.keys)}
    assert OPTIONS.keys() - RENAMED - NOT_OF_THE_FILE - keys == set()
    assert {"include_tags", "exclude_tags"} <= OPTIONS.keys()


@pytest.mark.parametrize("record", [REMOTE, GUARD])
def test_what_describes_a_remote_has_the_names_of_its_options(record: Any) -> None:
    assert {key.name for key in record.keys} - {"url", "upstream_name"} <= OPTIONS.keys()


def test_each_key_is_described_once() -> None:
    names = [key.name for key in MIRROR.keys]
    assert len(names) == len(set(names))
    assert all(key.description.endswith(".") for key in MIRROR.keys)


def test_rules_for_tags_become_options_of_a_remote() -> None:
    assert tag_options(None, None) == {}
    assert tag_options({"exclude": ["a"]}, None) == {"exclude_tags": ["a"]}
    assert tag_options({"exclude": ["a"], "newest": 3}, {"exclude": ["b"], "newest": 4}) == {
        "exclude_tags": ["a", "b"],
        "newest": 4,
    }
    assert tag_options({"exclude": ["*-debug"]}, {"include": ["x-debug"]}) == {
        "exclude_tags": ["*-debug"],
        "tag_sets": [{"include": ["x-debug"]}],
    }
    assert tag_options({"order": "name"}, [{"newest": 1}, {"include": ["a"]}]) == {
        "order": "name",
        "tag_sets": [{"newest": 1}, {"include": ["a"]}],
    }
