"""The second stage: the manifests below the tags of one shard, exact bytes, children before parents.

A tag was resolved once; everything below it is fetched by digest, level by level, and what the database knows
is not fetched again. Whatever one tag meets hurts that tag alone: it is held with the reason, and the rest go on.
What is finished is recorded as it goes, so that a repeat continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import DEFAULT_LIMITS, Descriptor, Manifest, ManifestLimits
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import ListedTag, SyncRun
from registry_sync.errors import LimitExceeded, NotFound, RegistrySyncError
from registry_sync.sync.parallel import for_each
from registry_sync.sync.ports import Database, RegistryClient
from registry_sync.sync.progress import Progress, format_count
from registry_sync.sync.verdicts import Verdict, reason, verdict

#: Roots that are walked together and recorded in one go; bounds memory and what a crash repeats.
ROOTS_AT_ONCE = 250


@dataclass
class ManifestsFetched:
    """Counts of one shard: tags by outcome, manifests that were new here."""

    tag_count: int = 0
    manifest_count: int = 0
    held_count: int = 0
    gone_count: int = 0

    def __str__(self) -> str:
        parts = [format_count(self.tag_count, "tag"), format_count(self.manifest_count, "new manifest")]
        if self.held_count:
            parts.append(f"{self.held_count:,} held")
        if self.gone_count:
            parts.append(f"{self.gone_count:,} gone")
        return ", ".join(parts)


@dataclass
class _Walk:
    """One group of roots: what was fetched, what failed, and the error that asks for another try."""

    manifests: dict[Digest, Manifest] = field(default_factory=dict)
    known: set[Digest] = field(default_factory=set)
    failures: dict[Digest, RegistrySyncError] = field(default_factory=dict)


def fetch_manifests(
    client: RegistryClient,
    database: Database,
    run: SyncRun,
    remote: RemoteSpec,
    *,
    shard: int,
    is_last_try: bool,
    tell: Callable[[str], None],
    limits: ManifestLimits = DEFAULT_LIMITS,
) -> ManifestsFetched:
    """Fetches and records what the pending tags of ``shard`` need.

    Temporary failures are raised after everything else was done, so that a retry finds only those left; on the
    last try they are held instead. Raises at once what would meet every request, such as refused credentials.
    """
    stage = _Stage(client, database, run, remote, is_last_try, limits, tell)
    pending = database.runs.tags_of_shard(run.id, shard)
    progress = Progress(tell, "tag", len(pending))
    for group in _groups(pending):
        stage.fetch(group)
        progress.add(len(group))
    progress.finish()
    if stage.retry is not None:
        raise stage.retry
    return stage.counts


def _groups(tags: Sequence[ListedTag]) -> Iterator[list[ListedTag]]:
    """Tags in groups of at most :data:`ROOTS_AT_ONCE` distinct manifests."""
    group: list[ListedTag] = []
    roots: set[str] = set()
    for tag in sorted(tags, key=lambda tag: (tag.digest or "", tag.name)):
        root = tag.digest or f"tag {tag.name}"
        if root not in roots and len(roots) == ROOTS_AT_ONCE:
            yield group
            group, roots = [], set()
        group.append(tag)
        roots.add(root)
    if group:
        yield group


@dataclass
class _Stage:
    """The shard's work, group by group; ``retry`` is the last temporary failure that asks for another try."""

    client: RegistryClient
    database: Database
    run: SyncRun
    remote: RemoteSpec
    is_last_try: bool
    limits: ManifestLimits
    tell: Callable[[str], None]
    counts: ManifestsFetched = field(default_factory=ManifestsFetched)
    retry: RegistrySyncError | None = None

    def fetch(self, group: list[ListedTag]) -> None:
        """Walks below the tags of ``group``, records manifests, then the outcome of each tag."""
        walk = _Walk()
        held: dict[TagName, RegistrySyncError] = {}
        gone: list[TagName] = []
        roots = self._roots(group, walk, held, gone)
        self._descend(dict.fromkeys(roots.values()), walk)
        roots = self._follow_moved(roots, walk, held, gone)
        ordered, broken = _children_first(roots.values(), walk, self.limits)
        self.database.contents.add_manifests(ordered)
        held.update({tag: broken[digest] for tag, digest in roots.items() if digest in broken})
        self._record({tag: digest for tag, digest in roots.items() if digest not in broken}, held, gone)
        self.counts.manifest_count += len(ordered)

    def _roots(
        self, group: list[ListedTag], walk: _Walk, held: dict[TagName, RegistrySyncError], gone: list[TagName]
    ) -> dict[TagName, Digest]:
        """Tag to digest; tags whose HEAD said nothing are fetched by name and hashed."""
        roots = {tag.name: tag.digest for tag in group if tag.digest is not None}

        def done(tag: TagName, manifest: Manifest) -> None:
            walk.manifests[manifest.digest] = manifest
            roots[tag] = manifest.digest

        def failed(tag: TagName, error: RegistrySyncError) -> None:
            if isinstance(error, NotFound) and error.kind != "repository":
                gone.append(tag)
            else:
                self._refuse_fatal(error)
                held[tag] = error

        unresolved = [tag.name for tag in group if tag.digest is None]
        for_each(
            lambda tag: self.client.get_manifest(self.remote.upstream, tag),
            unresolved,
            threads=self.remote.download_concurrency,
            done=done,
            failed=failed,
        )
        return roots

    def _descend(self, wanted: dict[Digest, Descriptor | None], walk: _Walk) -> None:
        """Fetches ``wanted`` and everything below, a level at a time."""
        for _ in range(self.limits.depth + 2):
            missing = {d: e for d, e in wanted.items() if d not in walk.manifests and d not in walk.failures}
            known = self.database.contents.known_manifests(missing)
            walk.known |= known
            fetch = [(digest, expected) for digest, expected in missing.items() if digest not in known]
            for_each(
                lambda item: self.client.get_manifest(self.remote.upstream, item[0], expected=item[1]),
                fetch,
                threads=self.remote.download_concurrency,
                done=lambda item, manifest: walk.manifests.__setitem__(item[0], manifest),
                failed=lambda item, error: self._fail(walk, item[0], error),
            )
            wanted = {
                child.digest: child
                for digest in wanted
                if digest in walk.manifests and digest not in walk.known
                for child in walk.manifests[digest].children
            }
            if not wanted:
                return
        for digest in wanted:
            problem = f"indexes are nested deeper than {self.limits.depth}"
            walk.failures.setdefault(digest, LimitExceeded(problem, digest=digest, limit="depth"))

    def _fail(self, walk: _Walk, digest: Digest, error: RegistrySyncError) -> None:
        self._refuse_fatal(error)
        walk.failures[digest] = error

    def _refuse_fatal(self, error: RegistrySyncError) -> None:
        if verdict(error, is_last_try=self.is_last_try) is Verdict.FATAL:
            raise error

    def _follow_moved(
        self, roots: dict[TagName, Digest], walk: _Walk, held: dict[TagName, RegistrySyncError], gone: list[TagName]
    ) -> dict[TagName, Digest]:
        """Tags whose manifest is gone are asked for once more by name: they moved, or they are gone too."""
        lost = [tag for tag, digest in roots.items() if isinstance(walk.failures.get(digest), NotFound)]
        if not lost:
            return roots
        kept = {tag: digest for tag, digest in roots.items() if tag not in set(lost)}
        again = self._roots([ListedTag(tag, None, None) for tag in lost], walk, held, gone)
        self._descend(dict.fromkeys(again.values()), walk)
        return {**kept, **again}

    def _record(
        self, resolved: dict[TagName, Digest], held: dict[TagName, RegistrySyncError], gone: list[TagName]
    ) -> None:
        retried = [tag for tag, error in held.items() if verdict(error, is_last_try=self.is_last_try) is Verdict.RETRY]
        for tag in retried:
            self.retry = held.pop(tag)
        for tag, error in sorted(held.items()):
            self.tell(f"tag {tag} is held: {reason(error)}")
        runs = self.database.runs
        runs.resolve_tags(self.run.id, resolved)
        runs.hold_tags(self.run.id, {tag: reason(error) for tag, error in held.items()})
        runs.drop_tags(self.run.id, gone)
        self.counts.tag_count += len(resolved)
        self.counts.held_count += len(held)
        self.counts.gone_count += len(gone)


def _children_first(
    roots: Iterable[Digest], walk: _Walk, limits: ManifestLimits
) -> tuple[list[Manifest], dict[Digest, RegistrySyncError]]:
    """Fetched manifests whose whole tree is there, each after its children; and roots that are broken, with why."""
    order: dict[Digest, Manifest] = {}
    verdicts: dict[Digest, RegistrySyncError | None] = dict.fromkeys(walk.known)
    sizes: dict[Digest, int] = {}

    def visit(digest: Digest) -> RegistrySyncError | None:
        if digest in verdicts:
            return verdicts[digest]
        manifest = walk.manifests.get(digest)
        if manifest is None:
            verdicts[digest] = walk.failures.get(digest) or NotFound(f"manifest {digest} was not found")
            return verdicts[digest]
        problems = [problem for child in manifest.children if (problem := visit(child.digest)) is not None]
        sizes[digest] = 1 + sum(sizes.get(child.digest, 1) for child in manifest.children)
        if not problems and sizes[digest] > limits.manifests_per_reference:
            text = f"manifest {digest} leads to more than {limits.manifests_per_reference:,} manifests"
            problems.append(LimitExceeded(text, digest=digest, limit="manifests_per_reference"))
        verdicts[digest] = problems[0] if problems else None
        if not problems:
            order[digest] = manifest
        return verdicts[digest]

    broken = {digest: problem for digest in roots if (problem := visit(digest)) is not None}
    return list(order.values()), broken
