"""Referrers of the manifests that a sync includes: signatures, attestations, SBOMs, and their own referrers.

For a registry with the referrers API it is requested for each manifest; otherwise referrer tags are found by their
names (distribution specification, "Listing Referrers" and "Referrers Tag Schema"; cosign's suffixed tags). A manifest
that is listed as a referrer and names another subject is not included. Where a registry refuses the API, manifests keep
their referrers of the latest version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor
from registry_sync.domain.quantities import format_count
from registry_sync.domain.references import TagName, referrer_tag_names
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import SyncRun
from registry_sync.errors import LimitExceeded, ReferrersUnavailable, RegistrySyncError
from registry_sync.sync.parallel import for_each, requests_at_once, warn
from registry_sync.sync.verdicts import MAX_PROBES, Verdict, verdict
from registry_sync.sync.walk import Walk, is_missing_upstream

if TYPE_CHECKING:
    from registry_sync.db.runs.selections import SelectionStore
    from registry_sync.oci.client import RegistryReader

#: The most levels of referrers of referrers; a signed SBOM needs two.
REFERRER_DEPTH = 4


@dataclass
class Listed:
    """The referrers that a registry lists, and the manifests for which it cannot list them.

    ``has_api`` None says that nothing is known of the API: no request was sent, or none succeeded.
    """

    found: dict[Digest, tuple[Descriptor, ...]] = field(default_factory=dict)
    unknown: dict[Digest, ReferrersUnavailable] = field(default_factory=dict)
    has_api: bool | None = None

    @property
    def problem(self) -> str | None:
        """The first reason why referrers cannot be listed; None when they can."""
        return next((error.message for error in self.unknown.values()), None)


@dataclass(frozen=True)
class EarlierRuns:
    """The findings of recent runs of the same remote about its registry's referrers API.

    ``know_api`` is whether one of them found the API, ``referrers`` are those of each manifest of the latest version.
    """

    know_api: Callable[[], bool]
    referrers: Callable[[], Mapping[Digest, frozenset[Digest]]]

    @classmethod
    def before(cls, run: SyncRun, selections: SelectionStore) -> EarlierRuns:
        """Those that are recorded before ``run``."""
        return cls(partial(selections.knows_referrers_api, run.id), partial(selections.referrers, run.repository_id))

    def subjects(self) -> Iterator[Digest]:
        """Manifests that they may have queried, first those with referrers in the latest version."""
        of_latest = self.referrers()
        yield from sorted(of_latest, key=lambda subject: not of_latest[subject])


def list_referrers(
    client: RegistryReader,
    remote: RemoteSpec,
    subjects: Iterable[Digest],
    *,
    earlier: EarlierRuns,
    failed: Callable[[Digest, RegistrySyncError], None],
) -> Listed:
    """The referrers that the registry lists for each of ``subjects``.

    Where it seems to have no API, and earlier runs found one, a few other subjects are queried to determine whether the
    API is hidden, so that nothing is known, or fails for some subjects only. Subjects whose response is invalid or
    temporarily unavailable are passed to ``failed``.
    """
    waiting = list(dict.fromkeys(subjects))
    listed = Listed()
    if not waiting:
        return listed
    is_known = earlier.know_api()

    def request(some: Sequence[Digest]) -> None:
        for_each(
            lambda subject: client.list_referrers_by_api(remote.upstream, subject, is_known=is_known),
            some,
            threads=requests_at_once(client, remote),
            done=done,
            failed=not_listed,
        )

    def done(subject: Digest, entries: tuple[Descriptor, ...] | None) -> None:
        listed.has_api = entries is not None
        if entries is not None:
            listed.found[subject] = entries

    def not_listed(subject: Digest, error: RegistrySyncError) -> None:
        if isinstance(error, ReferrersUnavailable):
            listed.unknown[subject] = error
        else:
            failed(subject, error)

    # The first one alone: a registry without the API gets one request.
    request(waiting[:1])
    rest = waiting[1:]
    if is_known and listed.unknown and _is_served_to_others(client, remote, waiting, earlier):
        listed.unknown.clear()
        rest = waiting
    if listed.has_api is not False:
        request(rest)
    return listed


def _is_served_to_others(
    client: RegistryReader, remote: RemoteSpec, subjects: Sequence[Digest], earlier: EarlierRuns
) -> bool:
    """Whether the API exists, though it fails for the first of ``subjects``: a few others are queried."""
    others = (subject for subject in dict.fromkeys((*earlier.subjects(), *subjects[1:])) if subject != subjects[0])
    for subject in islice(others, MAX_PROBES):
        with suppress(RegistrySyncError):
            client.list_referrers_by_api(remote.upstream, subject, is_known=True)
            return True
    return False


@dataclass(frozen=True)
class ComparedReferrers:
    """What a registry lists for all manifests of the latest version; ``other`` are those whose content is read again.

    They have other referrers there than the version holds, or their list cannot be read for a lasting reason.
    """

    listed: Listed
    other: frozenset[Digest]

    @property
    def is_same(self) -> bool:
        """Whether every referrer is known to be as the version holds it, or there is no API to ask."""
        return not self.other and not self.listed.unknown


def compare_referrers(client: RegistryReader, remote: RemoteSpec, earlier: EarlierRuns) -> ComparedReferrers:
    """Lists the referrers of each manifest of the latest version again. Raises what is temporary, or concerns all."""
    held = earlier.referrers()
    unreadable: set[Digest] = set()

    def failed(subject: Digest, error: RegistrySyncError) -> None:
        # Only permanent errors are left to the tag's own fetch, which holds it with the reason.
        if verdict(error, is_last_try=False) is not Verdict.HOLD:
            raise error
        unreadable.add(subject)

    listed = list_referrers(client, remote, held, earlier=earlier, failed=failed)
    if listed.has_api is False:
        return ComparedReferrers(listed, frozenset())
    other = {s for s, entries in listed.found.items() if {entry.digest for entry in entries} != held[s]}
    return ComparedReferrers(listed, frozenset(other | unreadable))


def add_referrers(
    walk: Walk,
    *,
    has_api: bool | None,
    earlier: EarlierRuns,
    kept: Callable[[], Mapping[Digest, frozenset[Digest]]],
    report: Callable[[str], None],
) -> Listed:
    """Reads the referrers of what ``walk`` has read, level by level; returns all that was listed.

    No request is sent where ``has_api`` says that there is no API. ``kept`` returns the referrers in the latest
    version, for manifests that are not or cannot be queried.
    """
    everything = Listed(has_api=has_api)
    queried: set[Digest] = set()
    for depth in range(REFERRER_DEPTH + 1):
        subjects = [digest for digest in (*walk.fetched, *walk.stored) if digest not in queried]
        if not subjects:
            break
        queried.update(subjects)
        listed = Listed()
        if everything.has_api is not False:
            listed = list_referrers(walk.client, walk.remote, subjects, earlier=earlier, failed=walk.fail)
            everything.found |= listed.found
            everything.unknown |= listed.unknown
            everything.has_api = listed.has_api if listed.has_api is not None else everything.has_api
        if depth == REFERRER_DEPTH:
            _refuse_deeper(walk, listed.found)
            break
        unlisted = subjects if everything.has_api is False else list(listed.unknown)
        held = {subject: found for subject in unlisted if (found := kept().get(subject))}
        known = {digest: None for digests in held.values() for digest in sorted(digests)}
        walk.descend({**known, **{entry.digest: entry for entries in listed.found.values() for entry in entries}})
        for subject, entries in listed.found.items():
            walk.names.update((entry.digest, f"a referrer of type {entry.artifact_type}") for entry in entries)
            walk.referrers[subject] = tuple(_confirmed(walk, subject, entries, report))
        for subject, digests in held.items():
            walk.referrers[subject] = tuple(digest for digest in sorted(digests) if walk.refers_to(digest, subject))
    return everything


def ask_for_referrers_api(
    client: RegistryReader,
    selections: SelectionStore,
    run: SyncRun,
    remote: RemoteSpec,
    digests: Iterable[Digest | None],
    *,
    report: Callable[[str], None],
) -> None:
    """Determines with one of ``digests`` whether the registry has the API, so that not every task has to."""
    one = next((digest for digest in digests if digest is not None), None)
    if one is None or selections.lacks_referrers_api(run.id):
        return
    # Other errors will occur again in the task that fetches the manifest.
    listed = list_referrers(
        client,
        remote,
        [one],
        earlier=EarlierRuns.before(run, selections),
        failed=lambda _subject, _error: None,
    )
    if listed.has_api is not None:
        selections.record_referrers_api(run.id, exists=listed.has_api)
    report_unknown(selections, run, listed, report)


def report_unknown(selections: SelectionStore, run: SyncRun, listed: Listed, report: Callable[[str], None]) -> None:
    """Records with the run, for the version that it makes, why referrers could not be looked up."""
    problem = listed.problem
    if problem is not None:
        count = format_count(len(listed.unknown), "manifest")
        warn(report, f"referrers of {count} are as in the latest version: {problem}")
        selections.record_referrers_problem(run.id, problem)


def _confirmed(
    walk: Walk, subject: Digest, entries: Iterable[Descriptor], report: Callable[[str], None]
) -> Iterable[Digest]:
    for entry in entries:
        if is_missing_upstream(walk.failures.get(entry.digest)):
            report(f"referrer {entry.digest} of {subject} is listed and gone")
        elif walk.has_read(entry.digest) and not walk.refers_to(entry.digest, subject):
            report(f"manifest {entry.digest} is listed as a referrer of {subject} and does not name it as its subject")
        else:
            yield entry.digest


def _refuse_deeper(walk: Walk, listed: Mapping[Digest, tuple[Descriptor, ...]]) -> None:
    for subject, entries in listed.items():
        if any(entry.digest not in walk.fetched and entry.digest not in walk.stored for entry in entries):
            problem = f"referrers of referrers are nested deeper than {REFERRER_DEPTH}"
            walk.failures.setdefault(subject, LimitExceeded(problem, digest=subject, limit="depth"))
        else:
            walk.referrers[subject] = tuple(e.digest for e in entries if walk.refers_to(e.digest, subject))


def present_referrer_tags(
    client: RegistryReader,
    remote: RemoteSpec,
    digests: Iterable[Digest],
    *,
    failed: Callable[[TagName, RegistrySyncError], None],
) -> list[TagName]:
    """The tags that belong to one of ``digests``, for a sync without a listing: each possible one is requested.

    A registry that takes such a tag for the digest, and responds with the manifest itself, has none. Tags that are
    selected by name are not included.
    """
    subject_of = {name: digest for digest in dict.fromkeys(digests) for name in referrer_tag_names(digest)}
    tag_filter = remote.tag_filter
    allowed = [name for name in subject_of if tag_filter.allows(name) and not tag_filter.wants(name)]
    existing: list[TagName] = []

    def done(name: TagName, digest: Digest | None) -> None:
        if digest != subject_of[name]:
            existing.append(name)

    def not_served(name: TagName, error: RegistrySyncError) -> None:
        if not is_missing_upstream(error):
            failed(name, error)

    for_each(
        lambda name: client.head_manifest(remote.upstream, name).digest,
        allowed,
        threads=requests_at_once(client, remote),
        done=done,
        failed=not_served,
    )
    return sorted(existing)
