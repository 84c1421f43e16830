"""A short comparison of two versions by their tags, for deciding whether to promote one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry_sync.domain.quantities import format_count
from registry_sync.domain.records import PageRequest, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.version_history import Change, TagChange

if TYPE_CHECKING:
    from registry_sync.db.versions.version_store import VersionStore

#: Tags that are listed for each kind of change; all are counted.
SHOWN_TAGS = 20
_PAGE = 10_000
_SHOWN_DIGITS = len("sha256:") + 12


@dataclass(frozen=True)
class Comparison:
    """``counts`` has every kind of change; ``first`` the first tags of each. ``base_number`` 0 is the empty version."""

    number: int
    base_number: int
    counts: Mapping[Change, int]
    first: Mapping[Change, Sequence[TagChange]]

    @property
    def is_equal(self) -> bool:
        """Whether no tag differs."""
        return not any(self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """The value for XCom: of bounded size, however much differs."""
        return {
            "number": self.number,
            "base_number": self.base_number,
            "is_equal": self.is_equal,
            "counts": {change.value: self.counts[change] for change in Change},
            "names": {change.value: [tag.name for tag in self.first[change]] for change in Change},
            "markdown": self.markdown(),
        }

    def markdown(self) -> str:
        """A line for each kind of change, with the count and the first tags."""
        if self.is_equal:
            return "No tag differs."
        lines = []
        for change in Change:
            if self.counts[change]:
                shown = ", ".join(_tag_text(tag) for tag in self.first[change])
                left = self.counts[change] - len(self.first[change])
                more = f" and {left:,} more" if left else ""
                lines.append(f"- **{format_count(self.counts[change], 'tag')} {change.value}**: {shown}{more}")
        return "\n".join(lines)


def compare_versions(
    versions: VersionStore, version: tuple[str, int], base: tuple[str, int], *, tags: TagFilter, mode: SyncMode
) -> Comparison:
    """The difference from ``base`` to ``version``, each a repository's id and a number, 0 for the empty version.

    Only ``tags`` count; under ``additive`` tags that only the base has do not. Raises
    :class:`~registry_sync.errors.RecordNotFound`.
    """
    counts = dict.fromkeys(Change, 0)
    first: dict[Change, list[TagChange]] = {change: [] for change in Change}
    offset, total = 0, 1
    while offset < total:
        found = versions.difference(*version, base[1], base_repository_id=base[0], request=PageRequest(offset, _PAGE))
        page = found.tags.page
        wanted = set(tags.select(changed.name for changed in page.items))
        for changed in page.items:
            is_kept = mode is SyncMode.ADDITIVE and changed.change is Change.REMOVED
            if changed.name in wanted and not is_kept:
                counts[changed.change] += 1
                if len(first[changed.change]) < SHOWN_TAGS:
                    first[changed.change].append(changed)
        offset, total = offset + _PAGE, page.total_count
    return Comparison(version[1], base[1], counts, first)


def _tag_text(tag: TagChange) -> str:
    if tag.change is Change.MOVED:
        return f"{tag.name} (`{_short(tag.before)}` to `{_short(tag.after)}`)"
    return tag.name


def _short(digest: str | None) -> str:
    return (digest or "")[:_SHOWN_DIGITS]
