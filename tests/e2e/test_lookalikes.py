"""The DAG against look-alikes of well-known registries: each gives what a plain registry gives of the same content.

One is synced by a real scheduler, in its processes; the others by the stages of the DAG in the process of the test,
with the client that its tasks make of the connection.
What a good client does not do is noted by the look-alikes, and must be nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.certificates import CertificateAuthority, ServerCertificate
from support.dag_runners import InStages, Runner, Scheduled, is_unchanged
from support.held import Held
from support.images import RepositoryContent
from support.lookalikes import known
from support.lookalikes.quirks import Habit, LookAlike
from support.lookalikes.server import HOSTS, LookAlikeServer
from support.memory_registry import MemoryRegistry
from support.ready_databases import RenewedDatabase
from support.shapes import every_kind
from support.syncing import Installation

#: Synced by a real scheduler; whoever is not named here is synced by the stages alone.
SCHEDULED = (known.DOCKER_HUB,)
IN_STAGES = tuple(kind for kind in known.KNOWN if kind not in SCHEDULED)
WAYS = ("in stages", "scheduled")
#: With the other tags more than a page of a hundred, and two of fifty.
RELEASES = 90
#: How many tags are requested although the registry's list of digests shows them as unchanged.
SAMPLE = 3
_seeds = itertools.count(100)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    return CertificateAuthority(tmp_path_factory.mktemp("ca")).server(hosts=HOSTS)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RenewedDatabase, RenewedDatabase]]:
    """Of the installation that is tested, and of the one that it is compared with."""
    folder = tmp_path_factory.mktemp("databases")
    tested, plain = RenewedDatabase(folder / "tested.db"), RenewedDatabase(folder / "plain.db")
    yield tested, plain
    tested.close()
    plain.close()


@pytest.fixture
def plainly_held(
    databases: tuple[RenewedDatabase, RenewedDatabase], tmp_path: Path
) -> Callable[[RepositoryContent], Held]:
    """What a sync of some content from a plain registry gives, in an installation of its own."""

    def sync(content: RepositoryContent) -> Held:
        plain_registry = MemoryRegistry()
        plain_registry.add("plain/app", content)
        installation = Installation.on(databases[1].renewed(), tmp_path / "plain")
        assert installation.sync("plain", plain_registry.url, "plain/app") is not None
        return Held.read(installation.database, installation.store, "plain")

    return sync


@pytest.fixture
def runner(
    request: pytest.FixtureRequest,
    databases: tuple[RenewedDatabase, RenewedDatabase],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Runner:
    if request.node.callspec.params["kind"] in SCHEDULED:
        return Scheduled(request.getfixturevalue("airflow"))
    return InStages(Installation.on(databases[0].renewed(), tmp_path), monkeypatch)


@pytest.mark.rule("A1.3", "A2.3", "A2.6", "A3.2", "A4.1", "A4.10", "A4.16", "A5.1", "A5.2", "A5.4", "A5.7")
@pytest.mark.rule("A6.1", "A6.4", "A6.6", "A7.1", "A7.3", "A7.4", "A7.6", "A7.7", "A7.9", "A7.10", "A9.6", "A9.7")
@pytest.mark.rule("A8.2", "A8.10", "A9.5", "A9.10")
@pytest.mark.parametrize("kind", [*IN_STAGES, *SCHEDULED], ids=lambda kind: f"{kind} {WAYS[kind in SCHEDULED]}")
def test_a_registry_with_habits_of_its_own_gives_what_a_plain_one_gives(
    kind: LookAlike,
    runner: Runner,
    certificate: ServerCertificate,
    plainly_held: Callable[[RepositoryContent], Held],
) -> None:
    content = every_kind(seed=next(_seeds), releases=RELEASES)
    expected = plainly_held(content)
    repository, conn_id = f"from-{kind}", f"at_{kind}".replace("-", "_")
    conf = {"repository": repository, "upstream_name": kind.repository, "conn_id": conn_id}
    task_count = 3 if kind.tells_digests else 4
    with LookAlikeServer(kind, content, certificate) as server:
        runner.connect(conn_id, server.connection)
        runner.sync(url=server.url, **conf)
        first = server.manifests.pulled.copy()
        referrers_asked = len(server.referrers_asked)
        server.forget()
        states = runner.sync(url=server.url, **conf)
        again = server.manifests.pulled.copy()
        asked_about = sorted(server.manifests.headed)
        referrers_asked_again = len(server.referrers_asked)
    assert server.witness.violations == []
    assert server.witness.habits == kind.habits, "the client has met all that this registry does of its own"
    assert runner.held(repository) == expected, "the second sync made no version"
    is_revoked = kind.auth.first_token_requests is not None
    assert server.gate.token_request_count <= task_count + is_revoked, "a token for each task, and one for a lost one"
    if kind.gives_digests:
        assert len(asked_about) == len(set(asked_about)) == SAMPLE, "the others are unchanged by the registry's list"
    else:
        assert asked_about == sorted(content.tags), "one HEAD for each tag"
    if Habit.LACKS_REFERRERS in kind.habits:
        assert (referrers_asked, referrers_asked_again) == (1, 0), "it is asked once for referrers, and that is kept"
    if kind.tells_digests:
        assert sorted(first) == sorted(content.manifests), "each manifest is pulled once"
        assert again == [], "and none when nothing changed"
        assert is_unchanged(states)
    else:
        below = set(content.manifests) - set(content.tags.values())
        assert sorted(first) == sorted({*content.tags, *below}), "tags are pulled by name, what is below them once"
        assert sorted(again) == sorted(content.tags), "and what they name is known"
