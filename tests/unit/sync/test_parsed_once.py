"""A sync parses its remote a fixed number of times, however many tags and blobs it has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from registry_sync.domain.platforms import Platform
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagFilter, TagPattern
from support.images import ContentBuilder
from support.memory_registry import MemoryRegistry
from support.syncing import Installation

NAME = "team/app"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kind of value was made of text or of its parts."""
    counts: Counter[str] = Counter()

    def count(cls: type, method: str, label: str) -> None:
        make = getattr(cls, method)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[label] += 1
            return make(*args, **kwargs)

        monkeypatch.setattr(cls, method, counted)

    count(RegistryUrl, "__init__", "url")
    count(RepositoryName, "__new__", "name")
    count(TagFilter, "__init__", "tag filter")
    count(TagPattern, "__new__", "tag pattern")
    count(Platform, "__init__", "platform")
    return counts


def counts_of_a_sync(folder: Path, made: Counter[str], tag_count: int) -> dict[str, int]:
    build = ContentBuilder(seed=tag_count)
    for number in range(tag_count):
        images = [build.image([build.blob(60)], architecture=name) for name in ("amd64", "arm64")]
        build.tag(f"v{number}", build.index(images))
    folder.mkdir()
    here = Installation.embedded(folder)
    with MemoryRegistry() as registry:
        registry.serve(NAME, build.content())
        made.clear()
        version = here.sync(
            "app", registry.url, NAME, include_tags=("v*",), exclude_tags=("*-rc",), platforms=("linux/amd64",)
        )
    here.database.close()
    assert version is not None
    assert version.summary.counts()["present"]["docker.tag"] == tag_count
    return dict(made)


def test_how_often_a_remote_is_parsed_does_not_depend_on_the_number_of_tags(tmp_path: Path, made: Counter[str]) -> None:
    few, many = (counts_of_a_sync(tmp_path / str(count), made, count) for count in (2, 20))
    assert few == many
