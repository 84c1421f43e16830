"""When tags were pushed, as the lists of digests of registries say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from registry_sync.domain.known_registries import DIGEST_APIS, DigestList
from registry_sync.domain.references import TagName
from registry_sync.oci.tag_digests import read_time
from support.digest_list_apis import APIS, NAME, A, Api, B, read
from support.hostile_registry import HostileRegistry, json_reply, reply

pytestmark = pytest.mark.rule("A7.13")

AT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "fraction"),
    [
        ("2024-05-06T07:08:09Z", 0),
        ("2024-05-06T07:08:09.5Z", 500_000),
        ("2024-05-06T07:08:09.12Z", 120_000),
        ("2024-05-06T07:08:09.123Z", 123_000),
        ("2024-05-06T07:08:09.1234Z", 123_400),
        ("2024-05-06T07:08:09.123456Z", 123_456),
        ("2024-05-06T07:08:09.1234567Z", 123_456),
        ("2024-05-06T07:08:09.123456789Z", 123_456),
        ("2024-05-06T07:08:09.000000000000001Z", 0),
        ("2024-05-06T07:08:09+00:00", 0),
        ("2024-05-06T09:08:09.633+02:00", 633_000),
        ("2024-05-06T01:38:09.1234567-05:30", 123_456),
        ("2024-05-06t07:08:09z", 0),
        ("2024-05-06 07:08:09", 0),
        (" 2024-05-06T07:08:09Z\n", 0),
        (1_714_979_289, 0),
        ("1714979289", 0),
        (1_714_979_289_250, 250_000),
        ("1714979289250", 250_000),
    ],
)
def test_a_time_is_read_with_its_fraction_and_zone(text: object, fraction: int) -> None:
    assert read_time(text) == AT + timedelta(microseconds=fraction)
    assert read_time(text).tzinfo is timezone.utc  # type: ignore[union-attr]


UNKNOWN: dict[str, object] = {
    "nothing": None,
    "empty": "",
    "blank": " ",
    "a word": "yesterday",
    "a flag": True,
    "a number with a point": 1_714_979_289.5,
    "a list": ["2024-05-06T07:08:09Z"],
    "an object": {"at": "2024-05-06T07:08:09Z"},
    "zero": 0,
    "zero as text": "0",
    "before the epoch": -1_714_979_289,
    "the zero time of Go": "0001-01-01T00:00:00Z",
    "that with a fraction": "0001-01-01T00:00:00.000Z",
    "the zero time of Unix": "1970-01-01T00:00:00Z",
    "before the first year": "0001-01-01T00:00:00+14:00",
    "after the last year": "9999-12-31T23:59:59-14:00",
    "microseconds": 1_714_979_289_000_000,
    "nanoseconds": "1714979289000000000",
    "many digits": "9" * 400,
    "digits of another script": "١٧١٤٩٧٩٢٨٩",
    "a month too many": "2024-13-06T07:08:09Z",
    "a day too many": "2024-02-30T07:08:09Z",
    "an hour too many": "2024-05-06T25:08:09Z",
    "two zones": "2024-05-06T07:08:09ZZ",
    "a zone of letters": "2024-05-06T07:08:09 CEST",
    "a local format": "06.05.2024 07:08",
    "an HTTP date": "Mon, 06 May 2024 07:08:09 GMT",
}


@pytest.mark.parametrize("given", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_time_that_cannot_be_read_is_unknown(given: object) -> None:
    assert read_time(given) is None


# -- the registries ----------------------------------------------------------------------------------------------------

#: An entry of a list as the registry documents it, with the time of the push left to fill in.
ENTRIES: Mapping[DigestList, Callable[[str, Any], dict[str, Any]]] = {
    DigestList.GITLAB: lambda name, at: {
        "name": name,
        "digest": A,
        "config_digest": B,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "size_bytes": 286734237,
        "created_at": "2022-06-07T12:10:12.412+00:00",
        "updated_at": "2023-06-07T12:10:12.412+00:00",
        **at("published_at"),
    },
    DigestList.AZURE: lambda name, at: {
        "name": name,
        "digest": A,
        "createdTime": "2022-06-07T12:10:12.4120000Z",
        "signed": False,
        "changeableAttributes": {"deleteEnabled": True, "writeEnabled": True, "readEnabled": True, "listEnabled": True},
        **at("lastUpdateTime"),
    },
    DigestList.HARBOR: lambda name, at: {
        "id": 7,
        "type": "IMAGE",
        "digest": A,
        "size": 286734237,
        "pull_time": "0001-01-01T00:00:00.000Z",
        "tags": [
            {
                "id": 9,
                "artifact_id": 7,
                "name": name,
                "pull_time": "0001-01-01T00:00:00.000Z",
                "immutable": False,
                **at("push_time"),
            }
        ],
    },
    DigestList.DOCKER_HUB: lambda name, at: {
        "id": 7,
        "name": name,
        "digest": A,
        "last_updated": "2022-06-07T12:10:12.412345Z",
        "tag_status": "active",
        "tag_last_pulled": "2025-06-07T12:10:12.412345Z",
        "images": [{"architecture": "amd64", "digest": B, "last_pushed": "2022-06-07T12:10:12.412345Z"}],
        "content_type": "image",
        **at("tag_last_pushed"),
    },
    DigestList.QUAY: lambda name, at: {
        "name": name,
        "reversion": False,
        "manifest_digest": A,
        "is_manifest_list": True,
        "size": None,
        "last_modified": "Tue, 07 Jun 2022 12:10:12 -0000",
        **at("start_ts"),
    },
}
#: The form in which a registry writes the same time, and that time.
WRITTEN: Mapping[DigestList, tuple[Any, datetime]] = {
    DigestList.GITLAB: ("2024-05-06T07:08:09.633+00:00", AT + timedelta(milliseconds=633)),
    DigestList.AZURE: ("2024-05-06T07:08:09.2961353Z", AT + timedelta(microseconds=296_135)),
    DigestList.HARBOR: ("2024-05-06T07:08:09.633Z", AT + timedelta(milliseconds=633)),
    DigestList.DOCKER_HUB: ("2024-05-06T07:08:09.296135Z", AT + timedelta(microseconds=296_135)),
    DigestList.QUAY: (1_714_979_289, AT),
}
each_dated = pytest.mark.parametrize(
    "api", [api for api in APIS if DIGEST_APIS[api.source].pushed is not None], ids=lambda api: api.source.value
)


def serve(registry: HostileRegistry, api: Api, entries: list[Any]) -> None:
    registry.on("GET", api.path, json_reply(api.page(entries, False)))
    registry.on("GET", "/api/v2.0/projects/team", json_reply({"name": "team", "registry_id": None}))


def entry(api: Api, name: str, *value: Any) -> dict[str, Any]:
    """The entry of a tag that was pushed at ``value``; without one the field is missing."""
    return ENTRIES[api.source](name, lambda key: {key: value[0]} if value else {})


def test_every_api_with_times_has_its_documented_entry() -> None:
    dated = {source for source, api in DIGEST_APIS.items() if api.pushed is not None}
    assert dated == ENTRIES.keys() == WRITTEN.keys()


@each_dated
def test_each_time_is_of_its_tag_and_one_that_cannot_be_read_costs_no_digest(
    registry: HostileRegistry, of: Any, api: Api
) -> None:
    written, at = WRITTEN[api.source]
    bad = {"null": None, "word": "yesterday", "go-zero": "0001-01-01T00:00:00Z", "year-1": "0001-01-01T00:00:00+14:00"}
    entries = [entry(api, "precise", written), entry(api, "whole", "2024-05-06T07:08:09Z"), entry(api, "absent")]
    serve(registry, api, [*entries, *(entry(api, name, value) for name, value in bad.items())])
    names = ["precise", "whole", "absent", *bad]
    listed = read(of(registry, api.source), map(TagName, names))
    assert listed.problem is None
    assert listed.digests == dict.fromkeys(names, A)
    assert listed.pushed_at == {"precise": at, "whole": AT}


@each_dated
def test_a_tag_that_is_listed_twice_was_pushed_at_the_later_time(registry: HostileRegistry, of: Any, api: Api) -> None:
    texts = ["2024-05-06T07:08:09Z", "2024-05-06T09:09:09+02:00", None, "2023-01-01T00:00:00Z"]
    serve(registry, api, [entry(api, "v1", text) for text in texts])
    assert read(of(registry, api.source), [TagName("v1")]).pushed_at == {"v1": AT + timedelta(minutes=1)}


@each_dated
def test_only_the_wanted_tags_have_times(registry: HostileRegistry, of: Any, api: Api) -> None:
    serve(registry, api, [entry(api, "v1", WRITTEN[api.source][0]), entry(api, "v2", WRITTEN[api.source][0])])
    assert read(of(registry, api.source), [TagName("v2")]).pushed_at.keys() == {"v2"}


@pytest.mark.parametrize(
    ("of_tag", "of_artifact", "at"),
    [
        ("2024-05-06T07:08:09.000Z", "2020-01-01T00:00:00.000Z", AT),
        (None, "2024-05-06T07:08:09.000Z", AT),
        ("0001-01-01T00:00:00.000Z", "2024-05-06T07:08:09.000Z", AT),
        ("soon", "2024-05-06T07:08:09.000Z", AT),
        ("0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z", None),
    ],
)
def test_a_tag_of_harbor_is_as_old_as_its_artifact_where_it_has_no_time(
    registry: HostileRegistry, of: Any, of_tag: str | None, of_artifact: str, at: datetime | None
) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.HARBOR)
    serve(registry, api, [entry(api, "v1", of_tag) | {"push_time": of_artifact}])
    assert read(of(registry, api.source), [TagName("v1")]).pushed_at == ({} if at is None else {"v1": at})


def test_google_says_when_an_image_was_uploaded_in_milliseconds(registry: HostileRegistry, of: Any) -> None:
    images = {
        A: {"tag": ["v1", "latest"], "timeCreatedMs": "0", "timeUploadedMs": "1714979289250"},
        B: {"tag": ["v0"], "timeCreatedMs": "0", "timeUploadedMs": "0"},
    }
    registry.on("GET", f"/v2/{NAME}/tags/list", json_reply({"tags": ["latest", "v0", "v1"], "manifest": images}))
    at = AT + timedelta(milliseconds=250)
    assert of(registry, DigestList.QUAY).list_tags(NAME).pushed_at == {"v1": at, "latest": at}


def test_a_number_of_too_many_digits_is_no_list(registry: HostileRegistry, of: Any) -> None:
    (api,) = (api for api in APIS if api.source is DigestList.QUAY)
    registry.on("GET", api.path, reply(200, f'{{"tags": [{{"name": "v1", "start_ts": {"9" * 5_000}}}]}}'))
    listed = read(of(registry, api.source), [TagName("v1")])
    assert listed.problem
    assert listed.pushed_at == {}
