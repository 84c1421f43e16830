"""The approval of removals, or of few tags, as a required action of Airflow: the task waits for a person, and goes on.

Airflow keeps the question and its response with the task instance, and shows it where people look for required actions.
A waiting task has the state *awaiting input* and occupies neither a slot nor the triggerer; a response, or the end of
the wait, resumes it. This requires no further task, and nothing at all of a sync that is not stopped.

Airflow keeps one question for each task instance and never changes its text, also where the task is cleared. So no
question is asked about other tags than those of the first one: such a task fails, and the command or REST approves it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from registry_sync.domain.quantities import format_count
from registry_sync.hooks.dag_runs import APPROVE

if TYPE_CHECKING:
    from registry_sync.domain.runs import SyncRun
    from registry_sync.errors import ApprovalRequired

log = logging.getLogger(__name__)

REJECT = "Reject"
_MAX_SHOWN = 1000


@dataclass(frozen=True)
class ApprovalResponse:
    """The response of a person, or of nobody in time.

    ``by`` is the name of who responded at ``at``; both None when nobody did.
    """

    is_approved: bool
    by: str | None = None
    at: datetime | None = None

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> ApprovalResponse:
        """The response in the event with which Airflow resumes the task."""
        user = event.get("responded_by_user") or {}
        by = None if "error" in event else user.get("name") or user.get("id") or "an unknown user"
        return cls(APPROVE in (event.get("chosen_options") or ()), by, event.get("responded_at"))

    def refusal(self, stopped_for: str, rejected: str) -> str:
        """Why no version was made: ``stopped_for``, with who ``rejected`` what, or that nobody responded."""
        if self.by is None:
            return f"nobody approved or rejected this in time: {stopped_for}"
        return f"{self.by} rejected {rejected}: {stopped_for}"


def question(refused: ApprovalRequired, repository: str, latest_number: int | None) -> tuple[str, str]:
    """The subject and the body, Markdown with every tag that the approval is of and its digest."""
    from registry_sync.errors import TooFewTags

    count = format_count(len(refused.tags), "tag")
    is_few = isinstance(refused, TooFewTags)
    which = "with only" if is_few else "without"
    stays = "" if latest_number is None else f" and keeps version {latest_number}"
    rows = [f"| `{name}` | `{digest}` |" for name, digest in refused.tags[:_MAX_SHOWN]]
    more = len(refused.tags) - _MAX_SHOWN
    lines = [
        f"{refused}.",
        "",
        f"**{APPROVE}** makes the version {which} the tags below. **{REJECT}** ends this run{stays}.",
        "",
        "| tag | digest |",
        "|---|---|",
        *rows,
        *(["", f"And {more:,} more."] if more > 0 else []),
    ]
    subject = f"Make a version of {repository} with only {count}?" if is_few else f"Remove {count} from {repository}?"
    return subject, "\n".join(lines)


def can_ask(context: Mapping[str, Any], subject: str, body: str) -> bool:
    """Asks the question, and returns whether Airflow shows it; False when it keeps another one, or does not respond."""
    try:
        from airflow.sdk.execution_time.comms import CreateHITLDetailPayload, HITLDetailRequestResult
        from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

        asked = CreateHITLDetailPayload(
            ti_id=context["ti"].id, options=[APPROVE, REJECT], subject=subject, body=body, params={}, assigned_users=[]
        )
        kept = SUPERVISOR_COMMS.send(msg=asked)
    except Exception as problem:  # noqa: BLE001  the run stops in any case; without a question it fails
        log.warning("Airflow takes no required action, so the run fails: %s", problem)
        return False
    if isinstance(kept, HITLDetailRequestResult) and (kept.subject, kept.body) == (subject, body):
        return True
    log.warning("this task has asked about other tags before, and Airflow shows one question for a task; the run fails")
    return False


def wait_for_response(run: SyncRun, refused: ApprovalRequired, stopped_for: str, timeout: timedelta) -> NoReturn:
    """Ends the task until there is a response; ``execute_complete`` of the operator then continues the sync."""
    from airflow.sdk.exceptions import TaskAwaitingInput

    resumes_with = {
        "sync_run": run.id,
        "seen": refused.fingerprint,
        "stopped_for": stopped_for,
        "stopped_by": type(refused).__name__,
    }
    raise TaskAwaitingInput(method_name="execute_complete", kwargs=resumes_with, timeout=timeout)
