"""What a sync takes along from the manifests that it reads, as its remote says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from registry_sync.domain.companions import looks_like_a_companion
from registry_sync.domain.manifests import Descriptor, Manifest
from registry_sync.domain.platforms import Platform, names_an_image, select_entries
from registry_sync.domain.records import RemoteSpec
from registry_sync.domain.references import TagName


@dataclass(frozen=True)
class Choice:
    """``platforms`` None takes every entry of an index; see :class:`RemoteSpec` for the rest.

    Two syncs with equal choices take the same from the same content.
    """

    platforms: tuple[Platform, ...] | None
    with_referrers: bool
    allow_sparse: bool

    @classmethod
    def of(cls, remote: RemoteSpec) -> Choice:
        """The choice of a remote."""
        return cls(remote.wanted_platforms, remote.include_referrers, remote.allow_sparse)

    def entries(self, manifest: Manifest) -> tuple[Descriptor, ...]:
        """Entries of an index that are taken, each digest once; of other kinds none. Raises what selecting raises."""
        taken = select_entries(manifest.children, self.platforms, manifest.digest)
        return tuple({entry.digest: entry for entry in taken}.values())

    def leaves_out(self, manifest: Manifest) -> bool:
        """Whether nothing of an index can be run on a wanted platform. Raises as :meth:`entries` does."""
        return (
            self.platforms is not None
            and names_an_image(manifest.children)
            and not names_an_image(self.entries(manifest))
        )

    def is_candidate(self, allows: Callable[[TagName], bool], tag: TagName) -> bool:
        """Whether a tag that was not asked for may hold what belongs to a manifest; ``allows`` is the tag filter's."""
        return self.with_referrers and looks_like_a_companion(tag) and allows(tag)
