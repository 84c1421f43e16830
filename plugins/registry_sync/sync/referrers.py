"""What refers to the manifests that a sync takes: signatures, attestations, bills of material, and so on upwards.

A registry with the referrers API is asked for each manifest; what others keep under tags is found by the tags' names
(distribution specification, "Listing Referrers" and "Referrers Tag Schema"; cosign's suffixed tags). What claims to
refer to a manifest and names another subject is not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from registry_sync.domain.companions import companion_names
from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import Descriptor
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.errors import LimitExceeded, RegistrySyncError
from registry_sync.sync.parallel import for_each
from registry_sync.sync.ports import RegistryClient
from registry_sync.sync.walk import Walk, is_not_there

#: Referrers of referrers of referrers of referrers; a signed bill of material needs two.
REFERRER_DEPTH = 4

Listed = dict[Digest, tuple[Descriptor, ...]]


def list_referrers(
    client: RegistryClient,
    remote: RemoteSpec,
    subjects: Iterable[Digest],
    *,
    failed: Callable[[Digest, RegistrySyncError], None],
) -> Listed | None:
    """What the registry says refers to each of ``subjects``; None when it has no referrers API.

    A subject of which it cannot be had is given to ``failed``.
    """
    waiting = list(dict.fromkeys(subjects))
    found: Listed = {}
    lacks_api = False

    def done(subject: Digest, listed: tuple[Descriptor, ...] | None) -> None:
        nonlocal lacks_api
        if listed is None:
            lacks_api = True
        else:
            found[subject] = listed

    # The first one alone: a registry without the API is asked once.
    for part in (waiting[:1], waiting[1:]):
        if not lacks_api:
            for_each(
                lambda subject: client.list_referrers_by_api(remote.upstream, subject),
                part,
                threads=remote.download_concurrency,
                done=done,
                failed=failed,
            )
    return None if lacks_api else found


def add_referrers(walk: Walk, *, tell: Callable[[str], None]) -> bool | None:
    """Reads what refers to what ``walk`` has read, and so on; whether the registry has the API, None when not asked."""
    asked: set[Digest] = set()
    for depth in range(REFERRER_DEPTH + 1):
        subjects = [digest for digest in (*walk.fetched, *walk.stored) if digest not in asked]
        if not subjects:
            break
        asked.update(subjects)
        listed = list_referrers(walk.client, walk.remote, subjects, failed=walk.fail)
        if listed is None:
            return False
        if depth == REFERRER_DEPTH:
            _refuse_deeper(walk, listed)
            break
        walk.descend({entry.digest: entry for entries in listed.values() for entry in entries})
        for subject, entries in listed.items():
            walk.referrers[subject] = tuple(_confirmed(walk, subject, entries, tell))
    return bool(asked) or None


def _confirmed(
    walk: Walk, subject: Digest, entries: Iterable[Descriptor], tell: Callable[[str], None]
) -> Iterable[Digest]:
    for entry in entries:
        if is_not_there(walk.failures.get(entry.digest)):
            tell(f"referrer {entry.digest} of {subject} is listed and gone")
        elif walk.has_read(entry.digest) and not walk.refers_to(entry.digest, subject):
            tell(f"manifest {entry.digest} is listed as a referrer of {subject} and does not name it as its subject")
        else:
            yield entry.digest


def _refuse_deeper(walk: Walk, listed: Listed) -> None:
    for subject, entries in listed.items():
        if any(entry.digest not in walk.fetched and entry.digest not in walk.stored for entry in entries):
            problem = f"referrers of referrers are nested deeper than {REFERRER_DEPTH}"
            walk.failures.setdefault(subject, LimitExceeded(problem, digest=subject, limit="depth"))
        else:
            walk.referrers[subject] = tuple(e.digest for e in entries if walk.refers_to(e.digest, subject))


def companions_there(
    client: RegistryClient,
    remote: RemoteSpec,
    digests: Iterable[Digest],
    *,
    failed: Callable[[TagName, RegistrySyncError], None],
) -> list[TagName]:
    """The tags that belong to one of ``digests``, for a sync that has no listing: each that may be there is asked for.

    A registry that takes such a tag for the digest, and answers with the manifest itself, has none. Those that were
    asked for in any case are left out.
    """
    subject_of = {name: digest for digest in dict.fromkeys(digests) for name in companion_names(digest)}
    wanted = set(remote.tag_filter.select(subject_of))
    allowed = [name for name in subject_of if remote.tag_filter.allows(name) and name not in wanted]
    there: list[TagName] = []

    def done(name: TagName, digest: Digest | None) -> None:
        if digest != subject_of[name]:
            there.append(name)

    def not_there(name: TagName, error: RegistrySyncError) -> None:
        if not is_not_there(error):
            failed(name, error)

    for_each(
        lambda name: client.head_manifest(remote.upstream, name).digest,
        allowed,
        threads=remote.download_concurrency,
        done=done,
        failed=not_there,
    )
    return sorted(there)
