"""How versions come about: by a sync, or from a version that exists."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class OriginKind(str, Enum):
    """``rollback`` makes an older version of the repository again; ``copy`` takes tags of another repository."""

    SYNC = "sync"
    ROLLBACK = "rollback"
    COPY = "copy"


@dataclass(frozen=True)
class Origin:
    """What a version was made from, and by whom.

    ``repository_id`` and ``number`` name the version that a rollback or a copy took its content from; None for a
    sync. That version may be gone since. ``created_by`` is who asked for it, None when nobody said.
    """

    kind: OriginKind = OriginKind.SYNC
    repository_id: str | None = None
    number: int | None = None
    created_by: str | None = None


SYNCED = Origin()
