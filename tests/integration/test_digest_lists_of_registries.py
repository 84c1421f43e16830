"""Each registry that lists digests, as a look-alike: what an unchanged sync costs, and what a sync must not miss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from registry_sync.db.tables import sync_runs
from registry_sync.domain.known_registries import DigestList
from support.certificates import CertificateAuthority, ServerCertificate
from support.hostile_registry import errors_reply
from support.images import ContentBuilder, RepositoryContent
from support.lookalikes import known
from support.lookalikes.quirks import LookAlike
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.syncing import Installation

pytestmark = pytest.mark.rule("A7.13", "A7.14")
TAGS = 110
SAMPLE = 3
#: The requests for the list of digests, where it is another one than that of tags; Harbor's are one more.
LISTS = {
    known.GOOGLE: 0,
    known.REGISTRY_K8S_IO: 0,
    known.QUAY: 2,
    known.GITLAB: 2,
    known.AZURE: 2,
    known.HARBOR: 2,
    known.ZOT: 1,
    known.DOCKER_HUB: 2,
}


def tagged(count: int = TAGS, *, moved: int = 0) -> RepositoryContent:
    """So many tags on three images, of which the first ``moved`` are on another one."""
    build = ContentBuilder(seed=8)
    images = [build.image([build.blob(10)]) for _ in range(4)]
    for number in range(count):
        build.tag(f"v{number:03}", images[3 if number < moved else number % 3])
    return build.content()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@dataclass
class Mirror:
    """Syncs from one look-alike, which has been synced once."""

    here: Installation
    server: LookAlikeServer
    options: dict[str, Any] = field(default_factory=dict)

    def sync(self) -> tuple[list[str], bool]:
        """The tags that were requested, and whether a version was made."""
        self.server.forget()
        kind, here = self.server.kind, self.here
        here.lines.clear()
        made = here.sync(
            "app", self.server.url, kind.repository, client=lambda remote: self.server.client(remote, **self.options)
        )
        return sorted(self.server.manifests.headed), made is not None

    @property
    def tags(self) -> dict[str, Any]:
        repository = self.here.database.repositories.by_name("app")
        return dict(self.here.database.versions.tags(repository.id))


@pytest.mark.parametrize("kind", LISTS, ids=str)
def test_a_registry_that_lists_digests_costs_few_requests_and_hides_nothing(
    kind: LookAlike, here: Installation, certificate: ServerCertificate
) -> None:
    with LookAlikeServer(kind, tagged(), certificate) as server:
        mirror = Mirror(here, server)
        assert_first(mirror)
        assert_unchanged(mirror)
        assert_moves_are_found(mirror)
        if LISTS[kind]:
            assert_a_refusal_is_made_up_for(mirror)
            assert_a_frozen_list_is_found_out(mirror)
        assert_off_asks_for_no_list(mirror)
        assert server.witness.violations == []


def assert_first(mirror: Mirror) -> None:
    asked, is_made = mirror.sync()
    assert (len(asked), is_made) == (TAGS, True)
    assert mirror.server.digests.requests == [], "a first sync has nothing to compare with"


def assert_unchanged(mirror: Mirror) -> None:
    asked, is_made = mirror.sync()
    assert (len(asked), is_made) == (SAMPLE, False)
    assert len(mirror.server.digests.requests) == LISTS[mirror.server.kind]
    assert mirror.server.manifests.pulled == []


def assert_moves_are_found(mirror: Mirror) -> None:
    after = tagged(TAGS + 2, moved=2)
    del after.tags["v100"]
    mirror.server.serve(after)
    asked, is_made = mirror.sync()
    assert is_made
    assert {"v000", "v001", f"v{TAGS}", f"v{TAGS + 1}"} <= set(asked)
    assert len(asked) == 4 + SAMPLE
    assert mirror.tags == after.tags


def assert_a_refusal_is_made_up_for(mirror: Mirror) -> None:
    """Others than this one are tested with the client and with a registry in memory."""
    mirror.server.digests.failure = errors_reply(403, "DENIED")
    asked, is_made = mirror.sync()
    assert (len(asked), is_made) == (len(mirror.tags), False)
    assert len([line for line in mirror.here.lines if "each tag is requested" in line]) == 1
    mirror.server.digests.failure = None
    with mirror.here.database.writing() as connection:
        connection.execute(sync_runs.update().values(digest_list=None))
    assert len(mirror.sync()[0]) == SAMPLE, "it is used again once the refusal is forgotten"


def assert_a_frozen_list_is_found_out(mirror: Mirror) -> None:
    mirror.server.digests.frozen = tagged(TAGS + 2, moved=2)
    after = tagged(moved=TAGS)
    mirror.server.serve(after)
    asked, is_made = mirror.sync()
    assert (len(asked), is_made) == (TAGS, True)
    assert mirror.tags == after.tags
    assert [line for line in mirror.here.lines.warnings if "out of date" in line]
    assert len(mirror.sync()[0]) == TAGS
    assert mirror.server.digests.requests == [], "it is not asked for a day"


def assert_off_asks_for_no_list(mirror: Mirror) -> None:
    mirror.options["digest_list"] = DigestList.OFF
    asked, is_made = mirror.sync()
    assert (len(asked), is_made, mirror.server.digests.requests) == (len(mirror.tags), False, [])
