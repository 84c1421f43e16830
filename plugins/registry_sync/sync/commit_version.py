"""The last stage: the repository version, in one transaction, or none when nothing differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from registry_sync.domain.platforms import platforms_warning
from registry_sync.domain.quantities import format_count
from registry_sync.domain.runs import CommitResult, SyncRun
from registry_sync.sync.parallel import warn

if TYPE_CHECKING:
    from registry_sync.db.database import Database

#: Holds that are listed in the log and in the task's XCom; all of them are stored with the version.
SHOWN_HOLDS = 20


def commit_version(database: Database, run: SyncRun, *, report: Callable[[str], None]) -> CommitResult:
    """Commits the content that ``run`` fetched; a repeat returns the same version.

    Raises :class:`~registry_sync.errors.NothingSynced` when every tag that changed is held.
    """
    result = database.versions.commit(run.id)
    for hold in result.holds[:SHOWN_HOLDS]:
        kept = f"kept at {hold.digest}" if hold.digest else "omitted"
        warn(report, f"tag {hold.tag} is held, {kept}: {hold.reason}")
    if len(result.holds) > SHOWN_HOLDS:
        more = format_count(len(result.holds) - SHOWN_HOLDS, "more tag")
        warn(report, f"{more} held; airflow registry-sync version show names all of them")
    if result.filtered_tags:
        warn(report, platforms_warning(result.filtered_tags, run.remote.platforms or ()))
    if result.removals_approved_by is not None:
        warn(report, f"more tags are removed than the remote allows, as {result.removals_approved_by} approved")
    if result.version is None:
        report("nothing differs from the latest version, no version was made")
        return result
    counts = result.version.summary.counts()
    report(
        f"version {result.version.number}: "
        + "; ".join(f"{part} " + _count_text(counts[part]) for part in ("added", "removed", "present"))
        + (f"; {format_count(len(result.holds), 'tag')} held" if result.holds else "")
        + (f"; {format_count(len(result.version.gaps), 'manifest')} missing upstream" if result.version.gaps else "")
    )
    if result.version.referrers_problem is not None:
        warn(report, f"version {result.version.number} may lack referrers: {result.version.referrers_problem}")
    return result


def _count_text(counts: dict[str, int]) -> str:
    return ", ".join(format_count(count, kind.removeprefix("docker.")) for kind, count in counts.items()) or "nothing"
