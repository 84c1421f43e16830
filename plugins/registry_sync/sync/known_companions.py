"""Tags that were not asked for and belong to what is held already: they are asked for with the tags.

What belongs to new content is found when that is fetched. What belongs to content that is about to go is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from registry_sync.domain.companions import companion_tags, fallback_tag
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName
from registry_sync.domain.runs import SyncRun
from registry_sync.errors import RegistrySyncError
from registry_sync.sync.ports import RegistryClient, Selections
from registry_sync.sync.referrers import companions_there

Heads = Mapping[TagName, Digest | None]


@dataclass(frozen=True)
class KnownCompanions:
    """``latest`` are the tags of the latest version, ``candidates`` those of a listing that were not asked for.

    Without a listing, the companions that are held are asked for again, and those that a tag's own manifest may have.
    """

    client: RegistryClient
    selections: Selections
    run: SyncRun
    remote: RemoteSpec
    latest: Mapping[TagName, Digest]
    candidates: Sequence[TagName]

    def heads(self, heads: Heads, resolve: Callable[[list[TagName]], Heads]) -> dict[TagName, Digest | None]:
        """Digests of the companions of those of ``heads`` that are unchanged, and of what belongs to these, by tag.

        None where a HEAD does not say, as in ``heads``; ``resolve`` asks.
        """
        has_listing = self.remote.tag_filter.literal_tags is None
        if has_listing and not self.candidates:
            return {}
        found: dict[TagName, Digest | None] = {}
        unchanged = self._unchanged(heads)
        while unchanged:
            below = self.selections.below(self.run.repository_id, unchanged)
            names = companion_tags(self.candidates if has_listing else self.latest, below)
            if not has_listing:
                names += self._there(unchanged.values())
            asked = resolve([name for name in dict.fromkeys(names) if name not in heads and name not in found])
            # Some registries take the tag for the digest that it is named after.
            asked = {name: digest for name, digest in asked.items() if digest is None or name != fallback_tag(digest)}
            found |= asked
            unchanged = self._unchanged(asked)
        return found

    def _unchanged(self, heads: Heads) -> dict[TagName, Digest]:
        return {tag: digest for tag, digest in self.latest.items() if heads.get(tag) == digest}

    def _there(self, digests: Iterable[Digest]) -> list[TagName]:
        def failed(_tag: TagName, error: RegistrySyncError) -> None:
            raise error

        return companions_there(self.client, self.remote, digests, failed=failed)
