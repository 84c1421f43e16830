"""A remote is parsed once, holds values, and gives back what was written; each of its options is described once."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, replace
from typing import Any

import pytest

from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.platforms import Platform, parse_platforms
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName, TagPattern
from registry_sync.domain.remote import OPTIONS, SYNC_OPTIONS, Policy, RemoteSpec, parameter_name, shown_value
from registry_sync.domain.tag_selector import TagSelector
from registry_sync.errors import ConfigurationError, InvalidReference, RegistrySyncError

#: Every option with what is not its default, as it is typed or sent.
WRITTEN: dict[str, Any] = {
    "include_tags": ("3.*", "latest", "latest"),
    "exclude_tags": ("*-rc",),
    "policy": "on_demand",
    "download_concurrency": 7,
    "conn_id": "hub",
    "proxy_url": "http://proxy.example:3128",
    "ssl_validation": False,
    "ssl_ca_certificate": "-----BEGIN CERTIFICATE-----",
    "ssl_client_certificate": "-----BEGIN CERTIFICATE-----",
    "platforms": ("linux/x86_64", "linux/arm/v7"),
    "include_referrers": False,
    "labels": {"team": "büro"},
    "allow_sparse": True,
    "allow_schema1": True,
    "include_foreign_layers": True,
    "max_held_share": 0.25,
    "max_removed_share": None,
    "max_removed_tags": 3,
    "min_tags": 2,
    "max_total_bytes": 50_000_000_000,
    "digest_list": "docker_hub",
    "regex": (r"v\d{1,3}",),
    "regex_all": (".+",),
    "exclude_regex": (".*b",),
    "semver": {"range": ">=3", "suffixes": "exclude"},
    "newest": {"count": 3, "of": "tags"},
    "order": "first_seen",
    "newer_than": "90d",
    "digests": (f"old@sha256:{'a' * 64}", f"sha256:{'b' * 64}"),
    "tag_sets": [{"include": ["3.*"], "newest": None}, {"regex": ["e.*"], "semver": None}],
}
FULL = RemoteSpec.parse("hub", " docker.io/ ", "alpine", **WRITTEN)
PLAIN = RemoteSpec.parse("hub", "docker.io", "alpine")


def test_a_remote_holds_values() -> None:
    assert FULL.url == RegistryUrl("https", "registry-1.docker.io")
    assert (FULL.upstream_name, FULL.upstream) == ("alpine", "library/alpine")
    assert isinstance(FULL.upstream, RepositoryName)
    assert FULL.source == "registry-1.docker.io/library/alpine"
    assert FULL.policy is Policy.ON_DEMAND
    assert FULL.platforms == (Platform.parse("linux/amd64"), Platform.parse("linux/arm/v7"))
    assert all(isinstance(entry, TagPattern) for entry in (*(FULL.include_tags or ()), *FULL.exclude_tags))
    assert isinstance(FULL.tag_filter, TagSelector)
    plain = FULL.changed(**{name: getattr(PLAIN, name) for name in list(OPTIONS)[-9:]}).tag_filter
    assert plain.select([TagName("3.1"), TagName("3.1-rc"), TagName("edge")]).tags == ("3.1",)
    assert plain.exact_names == ("latest",), "each once"


def test_what_was_written_is_given_back_as_it_was_written_through_json_too() -> None:
    document = FULL.document()
    assert document == {
        "name": "hub",
        "url": " docker.io/ ",
        "upstream_name": "alpine",
        **{name: list(value) if isinstance(value, tuple) else value for name, value in WRITTEN.items()},
    }
    assert all(type(value) in (str, int, bool, float, list, dict, type(None)) for value in document.values())
    again = RemoteSpec.of_document(json.loads(json.dumps(document)))
    assert again == FULL
    assert again.document() == document
    assert pickle.loads(pickle.dumps(again)) == FULL  # made here


def test_a_number_that_an_earlier_release_let_pass_its_bound_is_read_as_that_bound() -> None:
    stored = FULL.document() | {"download_concurrency": 1000, "max_removed_share": 7, "max_removed_tags": -1}
    read = RemoteSpec.of_document(stored)
    assert (read.download_concurrency, read.max_removed_share, read.max_removed_tags) == (100, 1, 0)


def test_a_document_of_an_earlier_release_reads_with_defaults_and_what_a_later_one_added_is_not_read() -> None:
    document = {"name": "hub", "url": "https://registry.example", "upstream_name": "a", "from_the_future": 1}
    assert RemoteSpec.of_document(document) == RemoteSpec.parse("hub", "https://registry.example", "a")


def test_two_remotes_are_the_same_however_their_places_are_written() -> None:
    assert RemoteSpec.parse("a", "https://docker.io/v2/", "x/y") == RemoteSpec.parse("a", "index.docker.io", "x/y")
    assert Platform.parse("linux/x86_64") == Platform.parse("linux/amd64")


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("download_concurrency", "3", 3),
        ("ssl_validation", "False", False),
        ("include_referrers", "true", True),
        ("policy", "streamed", Policy.STREAMED),
        ("max_total_bytes", "9007199254740991", 2**53 - 1),
        ("digest_list", "off", DigestList.OFF),
        ("platforms", ["linux/arm64"], parse_platforms(["linux/arm64"])),
        ("include_tags", [" a ", ""], ("a",)),
        ("conn_id", None, None),
    ],
)
def test_what_is_typed_becomes_a_value(name: str, typed: Any, value: Any) -> None:
    assert getattr(FULL.changed(**{name: typed}), name) == value


def test_a_remote_that_is_given_its_own_options_is_not_made_anew() -> None:
    typed = {name: value for name, value in FULL.document().items() if name in OPTIONS}
    assert FULL.changed(**typed) is FULL
    assert FULL.changed(**{**typed, "max_total_bytes": 7}) == replace(FULL, max_total_bytes=7)
    assert FULL.changed(name="other").name == "other"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"download_concurrency": "0"}, "download_concurrency is '0'; give a number from 1 to 100"),
        ({"download_concurrency": 101}, "download_concurrency is '101'; give a number from 1 to 100"),
        ({"download_concurrency": True}, "give a number from 1 to 100"),
        ({"download_concurrency": "9" * 5_000}, "give a number from 1 to 100"),
        ({"max_total_bytes": 2**53}, "give a number from 1 to 9007199254740991"),
        ({"max_removed_tags": -1}, "max_removed_tags is '-1'; give a number from 0 to 1000000"),
        ({"max_removed_share": 7}, "max_removed_share is '7'; give a share from 0 to 1"),
        ({"max_held_share": float("nan")}, "max_held_share is 'nan'; give a share from 0 to 1"),
        ({"download_concurrency": "²"}, "give a number from 1 to 100"),
        ({"max_total_bytes": "0"}, "max_total_bytes is '0'; give a number from 1 to 9007199254740991"),
        ({"max_total_bytes": "50GB"}, "max_total_bytes is '50GB'"),
        ({"ssl_validation": "yes"}, "ssl_validation is 'yes'; it is true or false"),
        ({"digest_list": "google"}, "digest_list is 'google'; it is one of auto, off, quay"),
        (
            {"digest_list": "docker_hub", "url": "quay.io"},
            "hub.docker.com serves for its own registry and not for quay",
        ),
        ({"policy": "never"}, "policy is 'never'; it is one of immediate, on_demand, streamed"),
        ({"platforms": ["linux"]}, "write it as os/architecture"),
        ({"platforms": []}, "give at least one"),
        ({"include_tags": ["a b"]}, "neither a tag nor a glob"),
        ({"url": "https://registry.example/path"}, "give only scheme, host and port"),
        ({"upstream_name": "A"}, "'library/A' is not a repository name"),
        ({"upstream_name": "a" * 250}, "longer than 255 characters together"),
    ],
)
def test_what_has_no_meaning_makes_no_remote(said: dict[str, Any], expected: str) -> None:
    with pytest.raises(RegistrySyncError, match=expected) as found:
        FULL.changed(**said)
    assert isinstance(found.value, InvalidReference | ConfigurationError)
    place = {"name": "new", "url": "docker.io", "upstream_name": "alpine"}
    with pytest.raises(RegistrySyncError, match=expected):
        RemoteSpec.parse(**place | said)


def test_every_field_but_name_and_place_is_an_option_that_is_described() -> None:
    named = [said.name for said in fields(RemoteSpec)]
    assert list(OPTIONS) == named[3:]
    assert named[:3] == ["name", "url", "upstream_name"]
    assert all(option.description and option.description[0].isupper() for option in OPTIONS.values())
    assert WRITTEN.keys() == OPTIONS.keys(), "this test knows a value of each"
    for name, option in OPTIONS.items():
        value = getattr(FULL, name)
        assert value is None or option.read(option, name, value) == value, "a value reads as itself"


def test_a_sync_may_say_these() -> None:
    assert {name: option.parameter for name, option in SYNC_OPTIONS.items()} == {
        "include_tags": "tags",
        "exclude_tags": "exclude_tags",
        "policy": "policy",
        "download_concurrency": "download_concurrency",
        "conn_id": "conn_id",
        "ssl_validation": "ssl_validation",
        "platforms": "platforms",
        "include_referrers": "include_referrers",
        "max_total_bytes": "max_total_bytes",
        **{name: name for name in ("digest_list", "regex", "regex_all", "exclude_regex", "semver", "newest", "order")},
        **{name: name for name in ("newer_than", "digests", "tag_sets")},
    }


def test_options_are_shown_to_people() -> None:
    plain = RemoteSpec.parse("hub", "https://registry.example", "a")
    assert [shown_value(name, plain) for name in ("include_tags", "exclude_tags", "platforms", "conn_id")] == [
        "all",
        "none",
        "all",
        "none",
    ]
    assert shown_value("ssl_validation", FULL) == "false"
    assert shown_value("policy", FULL) == "on_demand"
    assert shown_value("platforms", FULL) == "linux/x86_64, linux/arm/v7"
    assert shown_value("url", FULL) == " docker.io/ "
    assert (parameter_name("include_tags"), parameter_name("url"), parameter_name("labels")) == (
        "tags",
        "url",
        "labels",
    )
