"""Tags that lead to an index without any wanted platform: new ones are left out, and present ones never in silence.

When the platforms were chosen otherwise before, that choice is taken for the reason, and the removal of what it leaves
nothing of takes an approval. When the upstream published a tag again without them, that tag is held and the others go
on. A choice that leaves nothing at all is an error, and so is one that leaves nothing of any index, where the latest
version has none of these tags either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, or_, select

from registry_sync.db.content.closures import is_present
from registry_sync.db.content.missing_bytes import hold_tags
from registry_sync.db.queries import in_batches, is_one_of
from registry_sync.db.remotes import last_synced_by
from registry_sync.db.tables import manifest_children, manifests, repository_tags, run_tags, tags
from registry_sync.domain.digests import Digest
from registry_sync.domain.media_types import INDEX_TYPES
from registry_sync.domain.platforms import platform_text
from registry_sync.domain.records import RemoteSpec, SyncMode
from registry_sync.domain.references import TagName
from registry_sync.domain.referrer_tags import subject_by_name
from registry_sync.domain.runs import TagState
from registry_sync.errors import NothingSynced

_TAKEN = (TagState.RESOLVED.value, TagState.UNCHANGED.value, TagState.HELD.value)
_SHOWN_PLATFORMS = 10
#: Of a held tag that was not read nobody knows what it is.
_MAY_BE_AN_INDEX = or_(manifests.c.media_type.in_(sorted(INDEX_TYPES)), manifests.c.id.is_(None))


def settle_filtered(connection: Connection, run: Row[Any], remote: RemoteSpec) -> None:
    """Holds the tags that a mirror would lose because their upstream has no wanted platform of them any more.

    Tags that it would lose by another choice of platforms stay as they are noted, for who guards the removals. None is
    held by a run that may remove whatever goes; an approval of what was refused is for no tag that was held then.
    Raises :class:`NothingSynced` when the platforms leave no image at all, or nothing of any index.
    """
    filtered = _noted(connection, run.id, [TagState.FILTERED.value])
    if not filtered:
        return
    _refuse_to_leave_nothing(connection, run, remote, filtered)
    is_approved_in_advance = run.removals_approved_by is not None and run.refused_removals is None
    if run.mode != SyncMode.MIRROR.value or is_approved_in_advance:
        return
    if not platforms_are_unchanged(connection, run.repository_id, remote):
        return
    digest_of = {row.name: row.digest for row in filtered}
    kept = _present(connection, run.repository_id, digest_of)
    there = _platforms_by_index(connection, [digest_of[name] for name in kept])
    text = "the upstream has it for {} now, and for none of the platforms {} of the remote"
    wanted = ", ".join(remote.platforms or ())
    reasons = {name: text.format(_shown(there.get(digest_of[name], ())), wanted) for name in kept}
    hold_tags(connection, run.id, reasons)


def tags_without_platform(connection: Connection, run_id: str) -> list[TagName]:
    """Tags of a run that lead to an index without any wanted platform, by name, until the run settles."""
    return sorted(TagName(row.name) for row in _noted(connection, run_id, [TagState.FILTERED.value]))


def platforms_are_unchanged(connection: Connection, repository_id: str, remote: RemoteSpec) -> bool:
    """Whether the last sync of the repository chose the same platforms."""
    before = last_synced_by(connection, repository_id)
    return before is not None and _platforms(before) == _platforms(remote)


def platforms_there(connection: Connection, digests: Iterable[str]) -> str:
    """The platforms that these indexes list, as a remote names them; the first ones, and how many there are besides."""
    found = _platforms_by_index(connection, digests)
    return _shown({platform for platforms in found.values() for platform in platforms})


def _platforms_by_index(connection: Connection, digests: Iterable[str]) -> Mapping[str, Collection[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for batch in in_batches(sorted(set(digests))):
        listed = (
            select(manifests.c.digest, manifest_children.c.platform)
            .join(manifests, manifests.c.id == manifest_children.c.parent_id)
            .where(is_one_of(connection, manifests.c.digest, batch), manifest_children.c.platform.is_not(None))
        )
        for row in connection.execute(listed):
            if (text := platform_text(row.platform)) is not None:
                found[row.digest].add(text)
    return found


def _shown(platforms: Collection[str]) -> str:
    names = sorted(platforms)
    more = f" and {len(names) - _SHOWN_PLATFORMS} more" if len(names) > _SHOWN_PLATFORMS else ""
    return ", ".join(names[:_SHOWN_PLATFORMS]) + more if names else "no platform that is named"


def _refuse_to_leave_nothing(
    connection: Connection, run: Row[Any], remote: RemoteSpec, filtered: Sequence[Any]
) -> None:
    """Plain images are for no platform that a tag says, so they show nothing of whether the platforms are meant."""
    taken = _taken(run.id)
    is_plain_name = run_tags.c.name.not_like("sha256-%")
    # Nearly always one look; names in the form of a digest are looked at one by one.
    if connection.execute(taken.where(is_plain_name, _MAY_BE_AN_INDEX).limit(1)).first() is not None:
        return
    own = [row for row in connection.execute(taken.where(~is_plain_name)) if not _belongs_to_another(row)]
    if any(row.may_be_an_index for row in own):
        return
    remedy, whose = "correct the platforms", "the only tag" if len(filtered) == 1 else f"any of {len(filtered):,} tags"
    if own or connection.execute(taken.where(is_plain_name).limit(1)).first() is not None:
        if _present(connection, run.repository_id, (row.name for row in filtered)):
            return
        whose += " that is an index" if len(filtered) == 1 else " that are indexes"
        remedy += ", or leave these tags out with exclude_tags"
    raise NothingSynced(
        f"platforms {', '.join(remote.platforms or ())} of remote {remote.name!r} leave nothing of {whose}; there are "
        f"{platforms_there(connection, [row.digest for row in filtered])}. Nothing was synced; {remedy}"
    )


def _taken(run_id: str) -> Select[Any]:
    """Tags that the run takes or holds, and whether each may be an index."""
    columns = (run_tags.c.name, run_tags.c.digest, _MAY_BE_AN_INDEX.label("may_be_an_index"))
    known = run_tags.outerjoin(manifests, manifests.c.digest == run_tags.c.digest)
    return select(*columns).select_from(known).where(run_tags.c.sync_run_id == run_id, run_tags.c.state.in_(_TAKEN))


def _belongs_to_another(row: Row[Any]) -> bool:
    return subject_by_name(TagName(row.name), None if row.digest is None else Digest(row.digest)) is not None


def _noted(connection: Connection, run_id: str, states: Collection[str]) -> list[Any]:
    statement = select(run_tags.c.name, run_tags.c.digest).where(
        run_tags.c.sync_run_id == run_id, run_tags.c.state.in_(states)
    )
    return list(connection.execute(statement))


def _present(connection: Connection, repository_id: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that are tags of the latest version."""
    found: list[str] = []
    for batch in in_batches(sorted(names)):
        statement = (
            select(tags.c.name)
            .join(repository_tags, repository_tags.c.tag_id == tags.c.id)
            .where(tags.c.name.in_(batch), is_present(repository_tags, repository_id))
        )
        found += connection.execute(statement).scalars()
    return found


def _platforms(remote: RemoteSpec) -> frozenset[Any] | None:
    return None if remote.wanted_platforms is None else frozenset(remote.wanted_platforms)
