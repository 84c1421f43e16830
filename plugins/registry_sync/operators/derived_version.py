"""What the operators hand on that make a version out of another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry_sync.operators.stage import Stage
from registry_sync.operators.template_values import as_text
from registry_sync.operators.version_events import tell_assets

if TYPE_CHECKING:
    from registry_sync.domain.history import DerivedVersion
    from registry_sync.domain.records import Repository


def find_number(stage: Stage, repository: Repository, number: int | str | None) -> int:
    """The number that a parameter names, else the latest. Raises :class:`InvalidReference`, :class:`RecordNotFound`."""
    from registry_sync.errors import InvalidReference, RecordNotFound

    text = as_text(number)
    if text is not None:
        if not text.isascii() or not text.isdigit():
            raise InvalidReference(f"{text[:40]!r} is not the number of a version of {repository.name!r}")
        return stage.database.versions.get(repository.id, int(text[:10])).number
    if repository.latest_number is None:
        raise RecordNotFound(f"repository {repository.name!r} has no version yet")
    return repository.latest_number


def hand_on(
    stage: Stage, context: Mapping[str, Any], repository: Repository, derived: DerivedVersion
) -> dict[str, Any]:
    """Tells assets of a new version. ``repository``, ``version``, ``unchanged_version`` as a commit hands them on.

    ``missing_blob_count`` counts blobs whose bytes are not in the store; the next immediate sync fetches them.
    """
    from registry_sync.sync.commit_version import version_document

    latest = stage.database.versions.latest(repository.id) if derived.version is None else None
    if derived.version is not None:
        former_names = stage.database.repositories.former_names(repository.id)
        tell_assets(context, repository.name, derived.version, former_names)
    return {
        "repository": repository.name,
        "version": version_document(derived.version) if derived.version else None,
        "unchanged_version": version_document(latest) if latest else None,
        "missing_blob_count": derived.missing_blob_count,
    }
