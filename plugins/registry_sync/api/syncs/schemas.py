"""What a sync is asked with, and its answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from registry_sync.api.fields import Flag, GivenDocument, GivenHref, parsed
from registry_sync.domain.hrefs import read_remote_href, read_repository_href
from registry_sync.domain.records import SyncMode

_Mirror = Annotated[
    Flag, Field(description="Whether what is gone upstream is removed from the new version; false keeps it")
]


class NewSync(GivenDocument):
    """How to sync."""

    mirror: _Mirror = False

    @property
    def mode(self) -> SyncMode:
        """In the domain's word."""
        return SyncMode.MIRROR if self.mirror else SyncMode.ADDITIVE


class SyncIntoRepository(NewSync):
    """A sync of a remote: into which repository."""

    repository: Annotated[GivenHref, parsed(read_repository_href), Field(description="Path of a repository")]


class SyncFromRemote(NewSync):
    """A sync of a repository: from which remote."""

    remote: Annotated[GivenHref, parsed(read_remote_href), Field(description="Path of a remote")]


class TaskStarted(BaseModel):
    """The task that was begun."""

    task: str
