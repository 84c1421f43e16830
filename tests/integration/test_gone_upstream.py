"""A repository that is gone, private or out of reach looks different at each registry, and is never an empty one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from registry_sync.errors import (
    AccessDenied,
    AuthenticationFailed,
    NotFound,
    RegistryError,
    RepositoryUnavailable,
)
from support.certificates import CertificateAuthority, ServerCertificate
from support.images import RepositoryContent
from support.lookalikes import known
from support.lookalikes.quirks import LookAlike
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.memory_registry import MemoryRegistry
from support.shapes import documented_example
from support.syncing import Installation

#: What the others say is 404.
OTHER_ANSWERS: dict[str, type[RegistryError]] = {
    "docker-hub": AccessDenied,
    "quay": AuthenticationFailed,
    "google": AccessDenied,
    "ghcr": RepositoryUnavailable,
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@pytest.fixture(scope="module")
def content() -> RepositoryContent:
    return documented_example()


@pytest.mark.rule("A7.11", "A9.2", "A9.3")
@pytest.mark.parametrize("kind", known.KNOWN, ids=str)
def test_a_repository_that_cannot_be_seen_any_more_fails_the_sync_and_loses_nothing(
    here: Installation, kind: LookAlike, content: RepositoryContent, certificate: ServerCertificate
) -> None:
    with LookAlikeServer(kind, content, certificate) as server:
        before = MemoryRegistry()
        before.serve(kind.repository, content)
        assert here.sync("kept", server.url, kind.repository, client=lambda _remote: before.client()) is not None
        server.is_gone = True
        with pytest.raises(RegistryError) as caught:
            here.sync("kept", server.url, kind.repository, client=server.client)
    assert type(caught.value) is OTHER_ANSWERS.get(kind.name, NotFound), caught.value
    assert kind.repository in str(caught.value)
    if not isinstance(caught.value, NotFound):
        assert "does not exist" in str(caught.value), "a refusal is told as what it may be"
    assert not caught.value.is_temporary
    repository = here.database.repositories.by_name("kept")
    assert repository.latest_number == 1
    assert here.database.versions.tags(repository.id) == content.tags
    assert server.witness.violations == []


@pytest.mark.rule("A6.14")
def test_a_manifest_that_is_denied_is_not_missing_and_holds_its_tags_until_it_is_given(
    here: Installation, content: RepositoryContent, certificate: ServerCertificate
) -> None:
    """As zot answers for what it cannot fetch itself at the moment."""
    denying = replace(known.ZOT, manifests=replace(known.ZOT.manifests, denies_first=True))
    with LookAlikeServer(denying, content, certificate) as server:
        version = here.sync("denied", server.url, denying.repository, client=server.client)
        assert version is not None
        assert version.holds
        assert all("AccessDenied" in hold.reason for hold in version.holds)
        held = {hold.tag for hold in version.holds}
        tags = here.database.versions.tags(version.repository_id)
        assert tags == {name: digest for name, digest in content.tags.items() if name not in held}
        server.kind = known.ZOT
        server.serve(content)
        whole = here.sync("denied", server.url, denying.repository, client=server.client)
    assert whole is not None
    assert whole.is_complete
    assert here.database.versions.tags(whole.repository_id) == content.tags
