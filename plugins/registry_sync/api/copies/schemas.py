"""What a copy of tags is asked with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from registry_sync.api.fields import Flag, FreeText, GivenDocument, GivenHref, invalid, parsed
from registry_sync.domain.history import CopyRequest
from registry_sync.domain.hrefs import read_repository_href, read_version_href
from registry_sync.domain.records import SyncMode
from registry_sync.domain.tag_filter import TagFilter

MAX_NAMES = 1000


def _read_pattern(text: str) -> object:
    return TagFilter.parse([text], ())


Pattern = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=128), parsed(_read_pattern)]


class NewCopy(GivenDocument):
    """Which tags, of which repository or version. Exactly one of the two paths is given."""

    source_repository: Annotated[
        Annotated[GivenHref, parsed(read_repository_href)] | None,
        Field(description="Path of a repository, whose latest version is taken"),
    ] = None
    source_repository_version: Annotated[
        Annotated[GivenHref, parsed(read_version_href)] | None, Field(description="Path of a repository version")
    ] = None
    names: Annotated[
        list[Pattern] | None,
        Field(min_length=1, max_length=MAX_NAMES, description="Names and globs of tags; null for all"),
    ] = None
    mirror: Annotated[
        Flag,
        Field(description="Whether what else the repository holds is removed from the new version; false keeps it"),
    ] = False
    description: FreeText | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> NewCopy:
        if (self.source_repository is None) == (self.source_repository_version is None):
            raise invalid("Give either source_repository or source_repository_version.")
        return self

    def request(self) -> CopyRequest:
        """As a store takes it."""
        if self.source_repository_version is not None:
            repository_id, number = read_version_href(self.source_repository_version)
        else:
            repository_id, number = read_repository_href(str(self.source_repository)), None
        return CopyRequest(
            repository_id,
            number,
            TagFilter.parse(self.names, ()),
            SyncMode.MIRROR if self.mirror else SyncMode.ADDITIVE,
        )
