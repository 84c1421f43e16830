"""Files of other tools, of the kinds that people keep, imported: what is planned of each mirror is done."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry_sync.domain.mirrors import Mirror
from registry_sync.domain.records import PageRequest
from registry_sync.domain.references import RepositoryName
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunKey, RunTrigger
from registry_sync.domain.sync_plans import PlanOutcome, SyncPlan
from registry_sync.errors import RegistrySyncError
from registry_sync.fleet.declared_fleet import Fleet
from registry_sync.fleet.imports.formats import FORMATS, import_fleet
from registry_sync.fleet.loading import load_fleet
from registry_sync.oci.client import RegistryReader
from registry_sync.sync.declared_mirrors import planned_mirror_names, start_mirror
from registry_sync.sync.dry_run import plan_sync
from registry_sync.sync.local_run import sync_here
from support.filling import push
from support.images import ContentBuilder, RepositoryContent
from support.memory_registry import MemoryRegistry
from support.registry import RegistryServer
from support.syncing import Installation, new_client

FOLDER = Path(__file__).parents[1] / "support" / "foreign_files"
FILES = sorted(FOLDER.iterdir())
BY = RunTrigger(triggered_by="test")
#: What repositories have besides the tags that their mirrors name.
VERSIONS = (
    "latest", "edge", "foo", "3", "3.9", "3.10", "3.11-rc1", "3.3.1", "v1.0.0", "v1.5.1", "v1.28.4", "v1.31.0",
    "v2.0.1", "v2.1.0-rc.1", "v3.2.0", "v16.2.5-20210708", "1.31.1-glibc", "1.31.9", "4.1", "4.2.0", "7.2.1",
    "7.2-rc1", "1.25.0", "20230329", "1.20",
)  # fmt: skip


@dataclass
class Upstream:
    """The one registry behind all hosts of a file; what it serves is by the names of its repositories."""

    registry: MemoryRegistry
    builders: dict[str, ContentBuilder]

    @contextmanager
    def connect(self, remote: RemoteSpec) -> Iterator[tuple[RegistryReader, RemoteSpec]]:
        with self.registry.client() as client:
            yield client, remote

    def fill(self, fleet: Fleet) -> None:
        for mirror in fleet.mirrors:
            assert mirror.remote is not None
            name = str(mirror.remote.upstream)
            build = self.builders.setdefault(name, ContentBuilder(seed=len(self.builders)))
            fill(build, mirror)
            self.registry.serve(name, build.content())


def fill(build: ContentBuilder, mirror: Mirror) -> None:
    """Images and an index under the tags that the mirror names, and others."""
    assert mirror.remote is not None
    shared = build.blob(400)
    images = [build.image([shared, build.blob(100 + number)]) for number in range(4)]
    index = build.index([build.image([shared], architecture=name) for name in ("amd64", "arm64")])
    for number, tag in enumerate((*VERSIONS, *mirror.remote.tag_filter.exact_names)):
        build.tag(str(tag), index if number % 5 == 0 else images[number % 4])


def change(build: ContentBuilder, content: RepositoryContent, dice: random.Random) -> RepositoryContent:
    """Some tags move, one is new, and some are gone."""
    tags = sorted(content.tags)
    for tag in sorted({"latest", *dice.sample(tags, len(tags) // 2)}):
        build.tag(tag, build.image([build.blob(dice.randint(1, 3000))]))
    build.tag("v2.9.9", content.tags[tags[0]])
    for tag in dice.sample([tag for tag in tags if tag != "latest"], len(tags) // 6):
        build.untag(tag)
    return build.content()


def imported(path: Path, tmp_path: Path, **hosts: str) -> Fleet:
    data = path.read_text()
    for name, host in hosts.items():
        data = data.replace(name, host)
    result = import_fleet(data.encode(), path.name)
    (tmp_path / "mirrors.yaml").write_text(result.text)
    fleet = load_fleet(tmp_path / "mirrors.yaml", None, {})
    assert fleet.mistakes == ()
    assert len(fleet.mirrors) == result.mirror_count > 0
    return fleet


def plan_and_sync(here: Installation, mirror: Mirror, connect: object, number: int) -> SyncPlan:
    """Plans and syncs a mirror; each number that the plan gives is what the sync did."""
    key = RunKey("fleet", f"run-{number}", mirror.repository)

    def plan() -> SyncPlan:
        with here.database.copied_for_sync(planned_mirror_names(mirror)) as copy:
            return plan_sync(
                copy,
                here.store,
                lambda database: start_mirror(database, mirror, key, BY),
                connect,  # type: ignore[arg-type]  # one of two registries
                is_last_try=True,
                report=here.lines,
            )

    planned = plan()
    run = start_mirror(here.database, mirror, key, BY)
    before = {str(digest): here.store.size(digest) for digest in here.store.digests()}
    try:
        result = sync_here(here.database, here.store, run, connect, min_shard_bytes=1, report=here.lines)  # type: ignore[arg-type]
    except RegistrySyncError as refused:  # what the plan says of it is compared
        assert [(one.error, one.message) for one in planned.refusals][:1] == [(type(refused).__name__, str(refused))]  # noqa: PT017  one of two results
        return planned
    assert planned.refusals == ()
    assert planned.downloads.requests == here.database.runs.get(run.id).usage, mirror.repository
    sizes = {str(digest): here.store.size(digest) for digest in here.store.digests()}
    new = {digest: size for digest, size in sizes.items() if digest not in before}
    assert (planned.downloads.blobs, planned.downloads.blob_bytes) == (len(new), sum(new.values()))
    version = None if result is None else result.version
    if version is None:
        assert planned.outcome is PlanOutcome.UNCHANGED
        return planned
    assert (planned.outcome, planned.number) == (PlanOutcome.VERSION, version.number)
    tags = here.database.versions.difference(
        version.repository_id, version.number, version.base_number or 0, request=PageRequest(limit=1000)
    ).tags
    assert (planned.tags.added, planned.tags.moved, planned.tags.removed) == (
        tags.added_count, tags.moved_count, tags.removed_count,
    )  # fmt: skip
    return planned


def test_each_format_has_a_file() -> None:
    assert sorted(path.stem for path in FILES) == sorted(FORMATS)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_what_is_planned_of_an_imported_file_is_done(here: Installation, tmp_path: Path, path: Path) -> None:
    fleet = imported(path, tmp_path)
    upstream, dice = Upstream(MemoryRegistry(), {}), random.Random(path.stem)
    upstream.fill(fleet)
    outcomes: dict[str, set[PlanOutcome]] = {}
    for number in range(3):
        for mirror in fleet.mirrors if number < 2 else fleet.mirrors[:1]:
            planned = plan_and_sync(here, mirror, upstream.connect, number)
            outcomes.setdefault(f"{number}", set()).add(planned.outcome)
        if number == 0:
            for name, build in upstream.builders.items():
                upstream.registry.serve(name, change(build, build.content(), dice))
    assert outcomes["0"] == {PlanOutcome.VERSION}
    assert PlanOutcome.VERSION in outcomes["1"]
    assert outcomes["2"] <= {PlanOutcome.UNCHANGED, PlanOutcome.REFUSED}


def test_what_is_planned_of_an_imported_file_is_done_with_a_real_registry(
    here: Installation, tmp_path: Path, registry: RegistryServer
) -> None:
    path = FOLDER / "regsync.yaml"
    hosts: Mapping[str, str] = {"quay.io/": f"{registry.netloc}/", "registry.internal:5000\n": f"{registry.netloc}\n"}
    fleet = imported(path, tmp_path, **hosts)
    mirrors = [mirror for mirror in fleet.mirrors if mirror.remote and mirror.remote.url.netloc == registry.netloc]
    assert [str(mirror.repository) for mirror in mirrors] == ["quay/controller", "mirrored/agent"]

    @contextmanager
    def connect(remote: RemoteSpec) -> Iterator[tuple[RegistryReader, RemoteSpec]]:
        with new_client(remote) as client:
            yield client, remote

    for mirror in mirrors:
        assert mirror.remote is not None
        build = ContentBuilder(seed=3)
        fill(build, mirror)
        push(registry, RepositoryName(mirror.remote.upstream), build.content())
        registry.reset_counts()
        planned = plan_and_sync(here, mirror, connect, 0)
        asked, requests = registry.log(), planned.downloads.requests
        assert (asked.manifest_head_count, asked.tag_page_count) == (
            2 * requests.head_count, 2 * requests.tag_page_count,
        )  # fmt: skip
        assert asked.blob_get_count == requests.blob_get_count, "a plan downloads no blob"
        assert plan_and_sync(here, mirror, connect, 1).outcome is PlanOutcome.UNCHANGED
