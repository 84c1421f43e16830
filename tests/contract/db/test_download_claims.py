"""Which process fetches a blob, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from registry_sync.db.database import Database
from registry_sync.db.download_claims import DownloadClaim, DownloadClaimStore
from registry_sync.domain.digests import Digest

BLOB, OTHER = Digest.of(b"a blob"), Digest.of(b"another blob")


@pytest.fixture
def claims(database: Database) -> DownloadClaimStore:
    return database.download_claims


def test_the_first_one_has_the_claim_until_it_lets_go(claims: DownloadClaimStore) -> None:
    assert claims.take(BLOB, "first") is None
    assert claims.take(BLOB, "first") is None, "a repeat changes nothing"
    assert claims.take(BLOB, "second") == DownloadClaim("first", 0)
    assert claims.take(OTHER, "second") is None, "blobs do not stand in each other's way"
    claims.release(BLOB, "second")
    assert claims.take(BLOB, "second") == DownloadClaim("first", 0), "nobody ends another one's claim"
    claims.release(BLOB, "first")
    claims.release(BLOB, "first")
    assert claims.take(BLOB, "second") is None


def test_a_holder_that_lives_shows_it_for_all_its_claims_and_no_others(claims: DownloadClaimStore) -> None:
    for digest in (BLOB, OTHER):
        claims.take(digest, "first")
    third = Digest.of(b"a third one")
    claims.take(third, "second")
    claims.beat("first")
    claims.beat("first")
    beats = {digest: claims.take(digest, "asks") for digest in (BLOB, OTHER, third)}
    assert beats == {
        BLOB: DownloadClaim("first", 2),
        OTHER: DownloadClaim("first", 2),
        third: DownloadClaim("second", 0),
    }


def test_a_claim_that_stood_still_is_taken_over(claims: DownloadClaimStore) -> None:
    claims.take(BLOB, "dead")
    seen = claims.take(BLOB, "next")
    assert claims.take(BLOB, "next", lapsed=seen) is None
    assert claims.take(BLOB, "late", lapsed=seen) == DownloadClaim("next", 0), "it is another claim by now"
    claims.beat("dead")
    claims.release(BLOB, "dead")
    assert claims.take(BLOB, "late") == DownloadClaim("next", 0), "its old holder has none, whatever it believes"


def test_a_claim_that_moved_on_is_not_taken_over(claims: DownloadClaimStore) -> None:
    claims.take(BLOB, "alive")
    seen = claims.take(BLOB, "next")
    claims.beat("alive")
    assert claims.take(BLOB, "next", lapsed=seen) == DownloadClaim("alive", 1)


@pytest.mark.parametrize("lapsed", [None, DownloadClaim("dead", 0)])
def test_of_many_at_once_one_has_it_also_when_it_lapsed(
    claims: DownloadClaimStore, lapsed: DownloadClaim | None
) -> None:
    names = [f"process {number}" for number in range(8)]
    if lapsed is not None:
        claims.take(BLOB, lapsed.holder)
    with ThreadPoolExecutor(len(names)) as threads:
        found = list(threads.map(lambda name: claims.take(BLOB, name, lapsed=lapsed), names))
    (winner,) = (name for name, claim in zip(names, found, strict=True) if claim is None)
    assert {claim for claim in found if claim is not None} == {DownloadClaim(winner, 0)}
    assert claims.take(BLOB, "late") == DownloadClaim(winner, 0)
