"""Names are checked once, whole, before they may stand in a URL or a path."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import Reference, RegistryUrl, RepositoryName, TagName
from registry_sync.errors import InvalidReference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("name", ["a", "library/hello-world", "a.b_c__d---e/f0", "0/1", "a" * 255])
def test_a1_01_names_of_repositories(name: str) -> None:
    assert RepositoryName(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "../x", "a/../b", "a//b", "/a", "a/", "%2e%2e/a", "a\n", "a\0", "a___b", "a..b", "-a", "a-", "a" * 256,
     "\u00e4", "a b", None, 7, b"a"],
)  # fmt: skip
def test_a1_01_anything_else_is_no_name_of_a_repository(name: object) -> None:
    with pytest.raises(InvalidReference):
        RepositoryName(name)


def test_a1_01_a_hostile_name_takes_no_time() -> None:
    started = time.perf_counter()
    for hostile in ("a" * 254 + "!", "a-" * 127 + "!", "a/" * 127 + "!", "a" * 1_000_000):
        with pytest.raises(InvalidReference):
            RepositoryName(hostile)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("name", ["latest", "_x", "V1.2-3_4", "0", "a" * 128])
def test_a1_02_tags(name: str) -> None:
    assert TagName(name) == name


@pytest.mark.parametrize("name", ["", ".a", "-a", "a/b", "a:b", "latest\n", "a" * 129, "a b", "\u0661", None, 7, ["a"]])
def test_a1_02_anything_else_is_no_tag(name: object) -> None:
    with pytest.raises(InvalidReference):
        TagName(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latest", Reference(TagName("latest"), None)),
        (DIGEST, Reference(None, Digest(DIGEST))),
        (f"latest@{DIGEST}", Reference(TagName("latest"), Digest(DIGEST))),
        (f"@{DIGEST}", Reference(None, Digest(DIGEST))),
    ],
)
def test_a1_08_a_reference_is_a_tag_a_digest_or_both(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert str(expected) == (expected.digest or expected.tag)


@pytest.mark.parametrize("text", ["", "a@", "a@b", "sha256:00", "a@b@c", "a:b:c "])
def test_a1_08_anything_else_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("registry.example", "https://registry.example"),
        (" https://Registry.Example:443/ ", "https://registry.example"),
        ("http://localhost:80", "http://localhost"),
        ("localhost:5000", "https://localhost:5000"),
        ("https://registry.example/v2/", "https://registry.example"),
        ("https://[::1]:5000", "https://[::1]:5000"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000"),
    ],
)
def test_addresses_of_registries_have_one_spelling(text: str, url: str) -> None:
    assert str(RegistryUrl.parse(text)) == url
    assert RegistryUrl.parse(url) == RegistryUrl.parse(text)


@pytest.mark.parametrize("alias", ["docker.io", "index.docker.io", "registry.hub.docker.com", "registry-1.docker.io"])
def test_a1_06_docker_hub_is_one_registry_and_its_official_images_are_under_library(alias: str) -> None:
    hub = RegistryUrl.parse(alias)
    assert str(hub) == "https://registry-1.docker.io"
    assert hub.upstream_name("mariadb") == "library/mariadb"
    assert hub.upstream_name("bitnami/redis") == "bitnami/redis"


def test_a1_06_other_registries_have_no_library() -> None:
    assert RegistryUrl.parse("quay.io").upstream_name("busybox") == "busybox"
    assert RegistryUrl.parse("docker.io.evil.example").upstream_name("busybox") == "busybox"


def test_a1_01_host_and_name_together_have_at_most_255_characters() -> None:
    registry = RegistryUrl.parse("registry.example:5000")
    room = 255 - len("registry.example:5000/")
    assert registry.upstream_name("a" * room)
    with pytest.raises(InvalidReference):
        registry.upstream_name("a" * (room + 1))


@pytest.mark.parametrize(
    "text",
    ["", "https://", "ftp://x", "https://user:pass@x", "https://x/path", "https://x?y", "https://x#y", "https://x:y",
     "https://hub.docker.com", "https://x:99999", "https://-x", "https://a b", "https://[::1", "https://\u2460.example",
     "https://x:0", "https://x..example", "https://.x", "https://x.example.", "https://x\n.example", "ht\rtps://x",
     "https://x\x00", "https://x:50\x8500"],
)  # fmt: skip
def test_anything_else_is_no_address_of_a_registry(text: str) -> None:
    with pytest.raises(InvalidReference):
        RegistryUrl.parse(text)


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(InvalidReference) as raised:
        RegistryUrl.parse("https://user:hunter22@registry.example")
    assert "hunter22" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter22@registry.example:port", "https://user:hunter22", "user:hunter22", "//user:hunter22@x",
        "https://user:hunter22/x@registry.example", "https://user:hunter22@[registry", "https:/user:hunter22@x",
        "https://user:hunter22@\u2100.example", "https://user:hunter22@-x", "ftp://user:hunter22@registry.example",
        "https://user:hunter22?x@registry.example", "https://us er:hunter22@x",
    ],
)  # fmt: skip
def test_a_password_is_not_repeated_where_an_address_cannot_be_read(text: str) -> None:
    """Nor where the address stands in place of a name. Without an @ nothing tells it from one."""
    for read in (RegistryUrl.parse, *((RepositoryName, TagName) if "@" in text else ())):
        with pytest.raises(InvalidReference) as raised:
            read(text)
        assert "hunter22" not in str(raised.value)
        assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("kind", [RepositoryName, TagName, RegistryUrl.parse, Reference.parse, Digest])
@given(text=st.text(max_size=40))
def test_any_text_is_a_name_or_raises_its_own_error(kind: Callable[[str], object], text: str) -> None:
    with contextlib.suppress(InvalidReference):
        assert str(kind(text))
