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


def take(
    claims: DownloadClaimStore, digest: Digest, holder: str, lapsed: DownloadClaim | None = None
) -> DownloadClaim | None:
    """None when ``holder`` has the claim of one blob from now on; else that of whoever has it."""
    return claims.take_all([digest], holder, lapsed={} if lapsed is None else {digest: lapsed}).get(digest)


def test_the_first_one_has_the_claim_until_it_lets_go(claims: DownloadClaimStore) -> None:
    assert take(claims, BLOB, "first") is None
    assert take(claims, BLOB, "first") is None, "a repeat changes nothing"
    assert take(claims, BLOB, "second") == DownloadClaim("first", 0)
    assert take(claims, OTHER, "second") is None, "blobs do not stand in each other's way"
    claims.release_all([BLOB], "second")
    assert take(claims, BLOB, "second") == DownloadClaim("first", 0), "nobody ends another one's claim"
    claims.release_all([BLOB], "first")
    claims.release_all([BLOB], "first")
    assert take(claims, BLOB, "second") is None


def test_a_holder_that_lives_shows_it_for_all_its_claims_and_no_others(claims: DownloadClaimStore) -> None:
    for digest in (BLOB, OTHER):
        take(claims, digest, "first")
    third = Digest.of(b"a third one")
    take(claims, third, "second")
    claims.beat("first")
    claims.beat("first")
    beats = {digest: take(claims, digest, "asks") for digest in (BLOB, OTHER, third)}
    assert beats == {
        BLOB: DownloadClaim("first", 2),
        OTHER: DownloadClaim("first", 2),
        third: DownloadClaim("second", 0),
    }


def test_a_claim_that_stood_still_is_taken_over(claims: DownloadClaimStore) -> None:
    take(claims, BLOB, "dead")
    seen = take(claims, BLOB, "next")
    assert take(claims, BLOB, "next", lapsed=seen) is None
    assert take(claims, BLOB, "late", lapsed=seen) == DownloadClaim("next", 0), "it is another claim by now"
    claims.beat("dead")
    claims.release_all([BLOB], "dead")
    assert take(claims, BLOB, "late") == DownloadClaim("next", 0), "its old holder has none, whatever it believes"


def test_a_claim_that_moved_on_is_not_taken_over(claims: DownloadClaimStore) -> None:
    take(claims, BLOB, "alive")
    seen = take(claims, BLOB, "next")
    claims.beat("alive")
    assert take(claims, BLOB, "next", lapsed=seen) == DownloadClaim("alive", 1)


@pytest.mark.parametrize("lapsed", [None, DownloadClaim("dead", 0)])
def test_of_many_at_once_one_has_it_also_when_it_lapsed(
    claims: DownloadClaimStore, lapsed: DownloadClaim | None
) -> None:
    names = [f"process {number}" for number in range(8)]
    if lapsed is not None:
        take(claims, BLOB, lapsed.holder)
    with ThreadPoolExecutor(len(names)) as threads:
        found = list(threads.map(lambda name: take(claims, BLOB, name, lapsed=lapsed), names))
    (winner,) = (name for name, claim in zip(names, found, strict=True) if claim is None)
    assert {claim for claim in found if claim is not None} == {DownloadClaim(winner, 0)}
    assert take(claims, BLOB, "late") == DownloadClaim(winner, 0)


def test_many_are_taken_at_once_but_for_those_that_others_have(claims: DownloadClaimStore) -> None:
    blobs = [Digest.of(f"blob {number}".encode()) for number in range(700)]
    assert claims.take_all(blobs[::2], "first") == {}
    others = claims.take_all(blobs, "second")
    assert others == dict.fromkeys(blobs[::2], DownloadClaim("first", 0))
    assert claims.of_others(blobs, "first") == dict.fromkeys(blobs[1::2], DownloadClaim("second", 0))
    claims.release_all(blobs, "first")
    assert claims.take_all(blobs, "second") == {}
    assert claims.of_others(blobs, "second") == {}
    assert claims.take_all([], "third") == {}


def test_of_many_those_that_stood_still_are_taken_over(claims: DownloadClaimStore) -> None:
    claims.take_all([BLOB], "dead")
    claims.take_all([OTHER], "alive")
    seen = claims.of_others([BLOB, OTHER], "next")
    claims.beat("alive")
    assert claims.take_all([BLOB, OTHER], "next", lapsed=seen) == {OTHER: DownloadClaim("alive", 1)}
