"""The extras of asset events of versions and publications: what a DAG that they start has in hand without a request.

They are bounded: of the tags that differ it has the first ones, and the path of the difference over REST for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from registry_sync.domain.version_history import Change
from registry_sync.pulp.hrefs import distribution_href, href_of

if TYPE_CHECKING:
    from registry_sync.domain.records import RepositoryVersion
    from registry_sync.domain.serving import Distribution
    from registry_sync.domain.version_history import TagChange, TagDifference

#: The most tags that an event lists; the extra stays below 40 kB with the longest names.
MAX_EVENT_TAGS = 100


def version_event(repository: str, version: RepositoryVersion, difference: TagDifference) -> dict[str, Any]:
    """The extra of the event of ``version``, as JSON; ``difference`` is that from its base.

    ``repository`` is the name, ``number`` and ``href`` are the version, ``base_number`` is what it is compared with,
    None for the first one; ``origin`` is how it was made, ``counts`` are those of its summary, ``hold_count`` those of
    held tags. ``tags`` is the difference by tag.
    """
    return {
        "repository": repository,
        "number": version.number,
        "href": href_of(version),
        "base_number": version.base_number,
        "origin": version.origin.kind.value,
        "counts": version.summary.counts(),
        "hold_count": len(version.holds),
        "tags": _tags(difference, f"{href_of(version)}diff/"),
    }


def publication_event(repository: str, distribution: Distribution) -> dict[str, Any]:
    """The extra of the event of a change of what is published: of which ``repository``, by name, and where.

    ``number`` is None for the latest version at any time.
    """
    return {
        "base_path": distribution.base_path,
        "repository": repository,
        "number": distribution.version_number,
        "href": distribution_href(distribution.id),
    }


def _tags(difference: TagDifference, href: str) -> dict[str, Any]:
    """The listed tags by their change, the counts of all; ``is_complete`` when all are listed, else see ``href``."""
    listed: dict[str, list[dict[str, str]]] = {change.value: [] for change in Change}
    for tag in difference.page.items:
        listed[tag.change.value].append(tag_entry(tag))
    counts = {
        Change.ADDED.value: difference.added_count,
        Change.MOVED.value: difference.moved_count,
        Change.REMOVED.value: difference.removed_count,
    }
    is_complete = len(difference.page.items) == difference.page.total_count
    return {**listed, "counts": counts, "is_complete": is_complete, "href": href}


def tag_entry(tag: TagChange) -> dict[str, str]:
    """``name``, ``digest`` unless it was removed, ``previous_digest`` unless it was added."""
    digests = {"digest": tag.after, "previous_digest": tag.before}
    return {"name": str(tag.name), **{name: str(digest) for name, digest in digests.items() if digest is not None}}
