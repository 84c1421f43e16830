"""What a repository version says about its content, in the shape that Pulp documents.

A type without units is left out of each part, so that an empty part reads ``{}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry_sync.domain.hrefs import CONTENT_PATHS, units_href

_PARAMETERS = {
    "added": "repository_version_added",
    "present": "repository_version",
    "removed": "repository_version_removed",
}


@dataclass(frozen=True)
class ContentSummary:
    """Counts of units by content type: added and removed since the base version, present in this one."""

    added: Mapping[str, int] = field(default_factory=dict)
    present: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def as_json(self, href: str) -> dict[str, Any]:
        """The documented object; ``href`` is the version's own path, which the content links carry."""
        return {part: self._part(part, href) for part in ("added", "present", "removed")}

    def counts(self) -> dict[str, dict[str, int]]:
        """The same without links, for logs and for what tasks hand on."""
        return {
            part: {kind: count for kind, count in getattr(self, part).items() if count}
            for part in ("added", "present", "removed")
        }

    def _part(self, part: str, href: str) -> dict[str, Any]:
        counts: Mapping[str, int] = getattr(self, part)
        return {
            kind: {"count": counts[kind], "href": f"{units_href(kind)}?{_PARAMETERS[part]}={href}"}
            for kind in CONTENT_PATHS
            if counts.get(kind)
        }
