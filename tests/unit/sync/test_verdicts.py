"""Which errors stop a run, which are tried again, and which hurt one tag only."""

from __future__ import annotations

import pytest

from registry_sync import errors
from registry_sync.sync.verdicts import Verdict, reason, verdict

FATAL = [
    errors.AuthenticationFailed("no"),
    errors.ChallengeInvalid("no"),
    errors.RealmRefused("no"),
    errors.NotARegistry("no"),
    errors.RepositoryUnavailable("no"),
    errors.DatabaseUnavailable("no"),
    errors.BlobStoreFull("no"),
    errors.ConfigurationError("no"),
]
TEMPORARY = [
    errors.RateLimited("later", status=429),
    errors.ServerUnavailable("later"),
    errors.TruncatedBody("short"),
    errors.ProtocolError("odd", status=503),
]
HOLDS = [
    errors.NotFound("gone", kind="blob", status=404),
    errors.DigestMismatch("other"),
    errors.AmbiguousManifest("two"),
    errors.UnsupportedManifest("old"),
    errors.LimitExceeded("big"),
    errors.AccessDenied("blocked", status=403),
    errors.ProtocolError("odd", status=200),
]


@pytest.mark.parametrize("error", FATAL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("last", [False, True])
def test_what_meets_every_request_stops_the_task(error: errors.RegistrySyncError, last: bool) -> None:
    assert verdict(error, is_last_try=last) is Verdict.FATAL


@pytest.mark.parametrize("error", TEMPORARY, ids=lambda error: type(error).__name__)
def test_a_temporary_failure_is_tried_again_and_held_on_the_last_try(error: errors.RegistrySyncError) -> None:
    assert verdict(error, is_last_try=False) is Verdict.RETRY
    assert verdict(error, is_last_try=True) is Verdict.HOLD


@pytest.mark.parametrize("error", HOLDS, ids=lambda error: type(error).__name__)
def test_what_is_wrong_with_one_image_holds_its_tags(error: errors.RegistrySyncError) -> None:
    assert verdict(error, is_last_try=False) is Verdict.HOLD


def test_a_reason_is_one_line_with_the_kind_first() -> None:
    assert reason(errors.DigestMismatch("other\n  bytes")) == "DigestMismatch: other bytes"
