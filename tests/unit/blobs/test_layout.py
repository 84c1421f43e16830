"""The layout of a store: names that lead to a digest, and names that lead nowhere."""

from __future__ import annotations

import pytest

from registry_sync.blobs.layout import blob_name, digest_of, flat_name, may_hold_blobs
from registry_sync.domain.digests import Digest

DIGESTS = [Digest.of(b"some bytes"), Digest.of(b"some bytes", "sha512")]
HEX = "ab" + "0" * 62


@pytest.mark.parametrize("digest", DIGESTS)
def test_a_name_leads_back_to_its_digest(digest: Digest) -> None:
    assert digest_of(blob_name(digest)) == digest
    assert digest_of(flat_name(digest)) == digest
    algorithm, first_two, _encoded = blob_name(digest).split("/")
    assert may_hold_blobs(algorithm)
    assert may_hold_blobs(f"{algorithm}/{first_two}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        HEX,
        f"sha256/{HEX}",
        f"sha256/00/{HEX}",
        f"sha256/ab/{HEX[:-1]}",
        f"sha256/AB/{HEX.upper()}",
        f"sha256/ab/{HEX}/more",
        f"more/sha256/ab/{HEX}",
        f"sha512/ab/{HEX}",
        f"blake3/ab/{HEX}",
        f"sha256:{HEX}",
        f"sha256-{HEX}.tmp",
    ],
)
def test_any_other_name_leads_nowhere(name: str) -> None:
    assert digest_of(name) is None


@pytest.mark.parametrize("folder", ["", "blake3", "sha256/abc", "sha256/AB", "sha256/ab/cd", ".partials", "lost+found"])
def test_a_folder_of_another_name_holds_no_blobs(folder: str) -> None:
    assert not may_hold_blobs(folder)
