"""What refers to a manifest is not lost because the registry does not say it for a while."""

from __future__ import annotations

from contextlib import suppress

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.errors import RegistrySyncError
from support.held import Held
from support.memory_registry import ANY, MemoryRegistry, refusal
from support.shapes import signed_application
from support.signatures import with_companions
from support.syncing import Installation

NAME = "team/app"


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize("is_last_try", [False, True], ids=["more tries", "last try"])
@pytest.mark.parametrize("is_released", [False, True], ids=["nothing new", "a release"])
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_signatures_stay_while_the_registry_does_not_report_them(
    here: Installation, status: int, is_released: bool, is_last_try: bool
) -> None:
    """Also where a release comes meanwhile: it is taken without what the registry does not tell of, or not at all."""
    whole = signed_application(seed=status)
    signed = with_companions(whole, ["1.0"])
    registry = MemoryRegistry(has_referrers_api=True)
    registry.serve(NAME, signed)

    def sync() -> set[Digest]:
        here.sync("signed", registry.url, NAME, include_tags=("[12].*",), is_last_try=is_last_try)
        return set(Held.read(here.database, here.store, "signed").manifests)

    assert sync() == set(signed.manifests)
    registry.on("GET", "referrers", ANY, refusal(status))
    registry.serve(NAME, whole if is_released else signed)
    if status in (401, 404):
        sync()
    else:
        with suppress(RegistrySyncError):
            sync()
    assert set(Held.read(here.database, here.store, "signed").manifests) >= set(signed.manifests)
    registry.forget("referrers")
    registry.serve(NAME, whole if is_released else signed)
    assert sync() == set((whole if is_released else signed).manifests)
