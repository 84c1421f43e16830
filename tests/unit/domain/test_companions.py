"""Which manifest a tag belongs to by its name, and which tags are an image's own."""

from __future__ import annotations

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import TagName, fallback_tag, subject_by_name

IMAGE, OTHER = Digest.of(b"image"), Digest.of(b"other")


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
def test_a_tag_named_after_another_manifest_belongs_to_it(suffix: str) -> None:
    assert subject_by_name(TagName(f"{fallback_tag(IMAGE)}{suffix}"), OTHER) == IMAGE
    assert subject_by_name(TagName(f"{fallback_tag(IMAGE)}{suffix}"), None) == IMAGE


@pytest.mark.parametrize("name", [fallback_tag(IMAGE), f"{fallback_tag(IMAGE)}.txt", "sha256-abc", "latest", "v1.sig"])
def test_other_tags_are_an_image_s_own(name: str) -> None:
    """So is one that is named after the very manifest that it stands for."""
    assert subject_by_name(TagName(name), IMAGE) is None
