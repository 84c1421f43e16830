"""Of which states people were notified, on both databases: each once, and again when it comes back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from registry_sync.db.database import Database
from registry_sync.domain.mirror_states import MirrorState, NotifiedOf

ALL = tuple(NotifiedOf)
CHANGED = MirrorState("team/app", NotifiedOf.CHANGED, "1", "version 1")
GUARD = MirrorState("team/app", NotifiedOf.GUARD, "removals", "TooManyRemovals: 9 tags")
FAILED = MirrorState("team/app", NotifiedOf.FAILED, "NotFound", "NotFound: gone")


def claimed(database: Database, *states: MirrorState, to: str = "mail", has_failed: bool = False) -> list[str]:
    found = database.notified_states.claim("team/app", to, states, kinds=ALL, has_failed=has_failed)
    return [state.kind.value for state in found]


def test_a_state_is_claimed_once_by_each_recipient_and_again_with_another_fingerprint(database: Database) -> None:
    assert claimed(database, CHANGED) == ["changed"]
    assert claimed(database, CHANGED) == []
    assert claimed(database, CHANGED, to="hook") == ["changed"]
    assert claimed(database, replace(CHANGED, fingerprint="2")) == ["changed"]
    assert database.notified_states.known(["team/app", "team/web"], ["mail"]) == {"team/app": {"changed": "2"}}


def test_failures_end_with_a_success_and_not_with_each_other(database: Database) -> None:
    assert claimed(database, GUARD, has_failed=True) == ["guard"]
    assert claimed(database, FAILED, has_failed=True) == ["failed"]
    assert claimed(database, GUARD, has_failed=True) == []
    assert claimed(database) == []
    assert claimed(database, GUARD, has_failed=True) == ["guard"]


def test_what_is_no_news_is_told_only_after_an_earlier_state(database: Database) -> None:
    old = replace(CHANGED, is_news=False)
    assert claimed(database, old) == []
    assert claimed(database, replace(old, fingerprint="2")) == ["changed"]


def test_what_could_not_be_sent_is_claimed_again(database: Database) -> None:
    assert claimed(database, FAILED, has_failed=True) == ["failed"]
    database.notified_states.release("mail", [FAILED])
    assert claimed(database, FAILED, has_failed=True) == ["failed"]


def test_other_kinds_than_those_asked_for_stay_as_they_are(database: Database) -> None:
    assert claimed(database, GUARD, has_failed=True) == ["guard"]
    found = database.notified_states.claim("team/app", "mail", [], kinds=(NotifiedOf.CHANGED,), has_failed=False)
    assert found == []
    assert claimed(database, GUARD, has_failed=True) == []


def test_of_several_at_once_one_claims(database: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claimed(database, GUARD, has_failed=True), range(8)))
    assert sorted(found) == [[]] * 7 + [["guard"]]
