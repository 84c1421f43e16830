"""What refers to a manifest is not lost because the registry does not say it for a while."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from registry_sync.domain.digests import Digest
from registry_sync.errors import RegistrySyncError
from support.certificates import CertificateAuthority, ServerCertificate
from support.held import Held
from support.lookalikes import known
from support.lookalikes.quirks import Referrers
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.shapes import signed_application
from support.signatures import with_companions
from support.syncing import Installation

NAME = known.ZOT.repository


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@pytest.mark.rule("A8.2")
@pytest.mark.parametrize("is_last_try", [False, True], ids=["more tries", "last try"])
@pytest.mark.parametrize("is_released", [False, True], ids=["nothing new", "a release"])
@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_signatures_stay_while_the_registry_does_not_tell_of_them(
    here: Installation, certificate: ServerCertificate, status: int, is_released: bool, is_last_try: bool
) -> None:
    """Also where a release comes meanwhile: it is taken without what the registry does not tell of, or not at all."""
    whole = signed_application(seed=status)
    signed = with_companions(whole, ["1.0"])
    with LookAlikeServer(known.ZOT, signed, certificate) as server:

        def sync() -> set[Digest]:
            here.sync(
                "signed", server.url, NAME, client=server.client, include_tags=("[12].*",), is_last_try=is_last_try
            )
            return set(Held.read(here.database, here.store, "signed").manifests)

        assert sync() == set(signed.manifests)
        server.kind = replace(known.ZOT, referrers=Referrers(status))
        server.serve(whole if is_released else signed)
        if status in (401, 404):
            sync()
        else:
            with suppress(RegistrySyncError):
                sync()
        assert set(Held.read(here.database, here.store, "signed").manifests) >= set(signed.manifests)
        server.kind = known.ZOT
        server.serve(whole if is_released else signed)
        assert sync() == set((whole if is_released else signed).manifests)
