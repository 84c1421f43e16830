"""The documents of mirrors: what became of each in a DAG run of its fleet."""

from __future__ import annotations

from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.pulp.documents import Document, Timestamp


class MirrorResultDocument(Document):
    """The result of a mirror in one DAG run.

    ``repository`` is the name that it is synced into. ``version_number`` is the version that was made, or the latest
    when nothing changed; null for none. ``held_count`` is the number of tags that could not be updated. ``try_count``
    is how often it was tried; ``seconds``, ``request_count`` and ``received_bytes`` are of the last try. ``error`` says
    what happened and what to do, and ``is_temporary`` whether the same may succeed later. ``handed_over_to`` is the run
    id of the DAG run that syncs a large one.
    """

    repository: str
    outcome: MirrorOutcome
    version_number: int | None
    held_count: int
    error: str | None
    is_temporary: bool
    priority: int
    try_count: int
    seconds: float
    request_count: int
    received_bytes: int
    started_at: Timestamp
    finished_at: Timestamp
    dag_id: str
    run_id: str
    task_id: str
    handed_over_to: str | None
