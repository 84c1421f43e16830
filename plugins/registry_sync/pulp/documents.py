"""Documents in Pulp's shapes that tasks return and REST shows: a version and its content summary."""

from __future__ import annotations

from typing import Any

from registry_sync.domain.records import ContentSummary, RepositoryVersion
from registry_sync.pulp.hrefs import CONTENT_PATHS, base_href_of, href_of, units_href

_PARAMETERS = {
    "added": "repository_version_added",
    "present": "repository_version",
    "removed": "repository_version_removed",
}


def summary_document(summary: ContentSummary, href: str) -> dict[str, Any]:
    """The documented ``content_summary``; ``href`` is the version's own path, which the content links carry.

    A type without units is left out of each part, so that an empty part reads ``{}``.
    """
    return {
        part: {
            kind: {"count": counts[kind], "href": f"{units_href(kind)}?{_PARAMETERS[part]}={href}"}
            for kind in CONTENT_PATHS
            if counts.get(kind)
        }
        for part, counts in (("added", summary.added), ("present", summary.present), ("removed", summary.removed))
    }


def version_document(version: RepositoryVersion) -> dict[str, Any]:
    """A version in the documented shape of the "Synchronize a Repository" workflow."""
    href = href_of(version)
    return {
        "pulp_created": version.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "pulp_href": href,
        "base_version": base_href_of(version),
        "content_summary": summary_document(version.summary, href),
        "number": version.number,
    }
