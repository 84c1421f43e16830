"""Packed tags are a mapping as any other, and take little memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_sync.domain.digests import Digest
from registry_sync.domain.packed_tags import PackedTags
from registry_sync.domain.references import TagName

NAMES = st.sampled_from([TagName(name) for name in ("1.0", "1.1", "1.10", "edge", "latest", "main")])
DIGESTS = st.builds(Digest.of, st.binary(max_size=1), st.sampled_from(["sha256", "sha512"]))
TAGS = st.dictionaries(NAMES, st.none() | DIGESTS)


@given(names=st.lists(NAMES), changes=st.lists(st.tuples(NAMES, st.none() | DIGESTS | st.just(False))))
def test_what_was_set_is_read(names: list[TagName], changes: list[tuple[TagName, Digest | bool | None]]) -> None:
    """Whatever the names are and their order, also of tags that are none of them."""
    packed, expected = PackedTags(names), dict[TagName, Digest | None]()
    for name, digest in changes:
        if not isinstance(digest, bool):
            packed[name] = expected[name] = digest
        elif name in expected:
            del packed[name], expected[name]
        else:
            with pytest.raises(KeyError):
                del packed[name]
    assert packed == expected
    assert len(packed) == len(expected)
    assert all(packed[name] == digest for name, digest in expected.items())
    assert [name in packed for name in names] == [name in expected for name in names]
    assert dict(packed.items()) == expected
    assert len(packed.items()) == len(expected)
    assert "none" not in packed
    assert 7 not in packed
    named = [name for name in packed if name in names]
    assert list(packed)[: len(named)] == sorted(named)


def test_a_list_of_names_may_change_afterwards() -> None:
    names = [TagName("1.1"), TagName("1.2")]
    packed = PackedTags(names)
    packed[TagName("1.1")] = digest = Digest.of(b"one")
    names += [TagName("0.9")]
    names.sort()
    assert dict(packed) == {"1.1": digest}
    assert packed[TagName("1.1")] == digest


@given(tags=st.dictionaries(NAMES, DIGESTS), known=st.lists(NAMES, unique=True))
def test_tags_are_packed_in_any_order(tags: dict[TagName, Digest], known: list[TagName]) -> None:
    known = sorted(TagName(name) for name in known)
    packed = PackedTags.of(iter(tags.items()), known)
    assert list(packed.items()) == sorted(tags.items())
    shared = {id(name) for name in known}
    assert all((id(name) in shared) == (name in known) for name in packed)


@given(names=st.lists(NAMES), tags=TAGS, other=TAGS)
def test_tags_that_differ_are_those_with_another_digest(
    names: list[TagName], tags: dict[TagName, Digest | None], other: dict[TagName, Digest | None]
) -> None:
    packed = PackedTags(names)
    packed.update(tags)
    assert set(packed.differing(other)) == {
        name for name, digest in tags.items() if digest is None or other.get(name) != digest
    }


def test_a_tag_takes_less_than_fifty_bytes_beside_its_name() -> None:
    count = 10_000
    names = [TagName(f"nightly-{number:06}") for number in range(count)]
    tracemalloc.start()
    try:
        packed = PackedTags(names)
        for name in names:
            packed[name] = Digest.of(name.encode())
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(packed) == count
    assert held < 50 * count
    assert peak < 60 * count
