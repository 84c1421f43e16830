"""Which entries of an index are selected when only some platforms are wanted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.platforms import (
    Platform,
    entry_name,
    names_an_image,
    parse_platforms,
    platform_text,
    platforms_warning,
    select_entries,
)
from registry_sync.errors import InvalidManifest, InvalidReference

INDEX = Digest.of(b"index")


def entry(name: str, platform: Any = None, **annotations: str) -> Descriptor:
    notes = {f"vnd.docker.reference.{key}": value for key, value in annotations.items()}
    return Descriptor(
        media_types.OCI_MANIFEST, Digest.of(name.encode()), len(name), annotations=notes, platform=platform
    )


def platform(text: str, **more: Any) -> dict[str, Any]:
    os, architecture, *variant = text.split("/")
    return {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {}), **more}


def attestation(of: str) -> Descriptor:
    unknown = {"os": "unknown", "architecture": "unknown"}
    return entry(f"attests {of}", unknown, type="attestation-manifest", digest=Digest.of(of.encode()))


@pytest.mark.parametrize(
    ("wanted", "found", "is_match"),
    [
        ("linux/amd64", platform("linux/amd64"), True),
        ("linux/amd64", platform("linux/arm64"), False),
        ("linux/amd64", platform("windows/amd64"), False),
        ("linux/x86_64", platform("linux/amd64"), True),
        ("linux/arm64", platform("linux/arm64/v8"), True),
        ("linux/arm64/v8", platform("linux/arm64"), True),
        ("linux/arm64/v9", platform("linux/arm64"), False),
        ("linux/arm/v7", platform("linux/arm"), True),
        ("linux/arm/v6", platform("linux/arm/v7"), False),
        ("linux/arm/v6", platform("linux/arm"), False),
        ("linux/arm", platform("linux/arm/v6"), False),
        ("linux/arm", platform("linux/arm/v7"), True),
        ("linux/arm64", platform("linux/arm64/v9"), False),
        ("linux/amd64", platform("linux/amd64/v2"), True),
        ("linux/ppc64le/v1", platform("linux/ppc64le"), False),
        ("windows(10.0.20348)/amd64", platform("windows/amd64", **{"os.version": "10.0.20348.2582"}), True),
        ("windows(10.0.203)/amd64", platform("windows/amd64", **{"os.version": "10.0.20348.2582"}), False),
        ("windows(10.0.20348)/amd64", platform("windows/amd64"), False),
        ("windows(+win32k)/amd64", platform("windows/amd64", **{"os.features": ["win32k"]}), True),
        ("windows(+win32k)/amd64", platform("windows/amd64", **{"os.features": "win32k"}), False),
        ("linux/amd64", {"os": "linux", "architecture": 64}, False),
    ],
)
@pytest.mark.rule("A6.15")
def test_a_platform_matches_by_os_architecture_variant_version_and_features(
    wanted: str, found: dict[str, Any], is_match: bool
) -> None:
    assert Platform.parse(wanted).matches(found) is is_match


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "Linux amd64", "l/a\n/x", "a" * 300]
)
def test_a_platform_of_another_form_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidReference, match="linux/arm/v7"):
        Platform.parse(text)


def test_no_platform_at_all_is_refused() -> None:
    with pytest.raises(InvalidReference, match="at least one"):
        parse_platforms([])


@given(st.text(max_size=300))
def test_any_text_is_a_platform_or_refused(text: str) -> None:
    try:
        parsed = Platform.parse(text)
    except InvalidReference:
        return
    assert parsed.os
    assert parsed.architecture


@pytest.mark.rule("A6.15")
def test_without_a_choice_every_entry_is_taken() -> None:
    entries = (entry("a", platform("linux/amd64")), attestation("a"), entry("odd", {"os": 1}))
    assert select_entries(entries, None, INDEX) == entries


@pytest.mark.rule("A6.15")
def test_entries_that_match_are_taken_and_those_without_a_platform() -> None:
    entries = (
        entry("a", platform("linux/amd64")),
        entry("b", platform("linux/arm64/v8")),
        entry("c"),
        entry("d", {}),
        entry("e", platform("windows/amd64")),
    )
    taken = select_entries(entries, parse_platforms(["linux/arm64"]), INDEX)
    assert taken == (entries[1], entries[2], entries[3])


@pytest.mark.rule("A6.16")
def test_an_attestation_is_taken_exactly_when_its_image_is() -> None:
    entries = (
        entry("a", platform("linux/amd64")),
        attestation("a"),
        entry("b", platform("linux/arm64")),
        attestation("b"),
        attestation("elsewhere"),
        entry("x", platform("linux/amd64"), type="something-else", digest="sha256:junk"),
    )
    taken = select_entries(entries, parse_platforms(["linux/amd64"]), INDEX)
    assert taken == (entries[0], entries[1], entries[5])
    assert names_an_image(taken)


@pytest.mark.rule("A6.16")
def test_an_index_whose_images_are_all_excluded_has_no_image() -> None:
    entries = (entry("a", platform("windows/amd64")), attestation("a"))
    assert not names_an_image(select_entries(entries, parse_platforms(["linux/amd64"]), INDEX))
    assert not names_an_image((attestation("a"),))


@pytest.mark.rule("A6.15")
@pytest.mark.parametrize("shape", [{"os": 1, "architecture": "amd64"}, {"os": "linux"}])
def test_a_platform_that_cannot_be_read_is_refused_when_there_is_a_choice(shape: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest, match="platform"):
        select_entries((entry("a", shape),), parse_platforms(["linux/amd64"]), INDEX)


@pytest.mark.parametrize(
    ("platform", "text"),
    [
        ({"os": "linux", "architecture": "amd64"}, "linux/amd64"),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm/v7"),
        ({"os": "windows", "architecture": "amd64", "os.version": "10.0.20348.1"}, "windows(10.0.20348.1)/amd64"),
        ({"os": "linux", "architecture": "arm64", "os.version": None}, "linux/arm64"),
        ({"os": "linux\nERROR", "architecture": "amd64"}, None),
        ({"os": "unknown", "architecture": "unknown"}, None),
        ({"os": "linux"}, None),
        ({"os": ["linux"], "architecture": "amd64"}, None),
        ({}, None),
    ],
)
def test_a_platform_is_shown_as_a_remote_names_it(platform: Any, text: str | None) -> None:
    assert platform_text(platform) == text
    if text is not None:
        assert Platform.parse(text).matches(platform)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"platform": {"os": "linux", "architecture": "amd64"}}, "linux/amd64"),
        ({"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}, "linux/arm64"),
        ({"platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}, "linux/arm/v7"),
        ({"platform": {"os": 7, "architecture": "amd64"}}, "amd64"),
        ({"platform": {"os": "a\nb"}}, "an entry of type a/b"),
        ({}, "an entry of type a/b"),
        ({"artifact_type": "c/d"}, "an entry of type c/d"),
        (
            {
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {
                    "vnd.docker.reference.type": "attestation-manifest",
                    "vnd.docker.reference.digest": "sha256:" + "a" * 64,
                },
            },
            "the attestation of sha256:aaaaaaaaaaaa",
        ),
    ],
)
def test_an_entry_is_called_what_it_is(fields: dict[str, Any], name: str) -> None:
    assert entry_name(Descriptor("a/b", Digest.of(b"x"), 1, **fields)) == name


def test_tags_that_platforms_exclude_are_named_and_counted() -> None:
    names = [f"v{number}" for number in range(1_007)]
    assert platforms_warning(names[:1], parse_platforms(["linux/amd64"])) == (
        "1 tag has none of the platforms linux/amd64 and is excluded: v0"
    )
    assert (
        platforms_warning(names, parse_platforms(["linux/amd64", "linux/s390x"])).removeprefix(
            "1,007 tags have none of the platforms "
        )
        == "linux/amd64, linux/s390x and are excluded: v0, v1, v2, v3, v4 and 1,002 more"
    )
