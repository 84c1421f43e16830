"""A stopped mirror waits for a person, as Airflow's required action, and goes on or ends as they respond."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CreateHITLDetailPayload, HITLDetailRequestResult

from registry_sync.db.database import Database
from registry_sync.domain.mirror_results import MirrorOutcome
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import RunKey, RunState, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.errors import ApprovalRequired, TooFewTags, TooManyRemovals
from registry_sync.operators.approvals import question
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.mirror_notifier import MirrorNotifier, _outcome
from registry_sync.operators.run_notes import RUN_NOTE_KEY
from support.metadata import Upstream, image, open_run, play_stages, sync, upstream_with
from support.task_contexts import TaskContext

KEY = RunKey("mirror", "manual__1")
RESPONDED_AT = datetime(2026, 11, 29, 9, 30, tzinfo=timezone.utc)
ANNA = {"id": "7", "name": "anna"}
DAY = timedelta(days=1)


class Questions:
    """Airflow's API for a task: it keeps the first question of a task instance, whatever it is asked later."""

    def __init__(self) -> None:
        self.asked: dict[UUID, CreateHITLDetailPayload] = {}

    def send(self, msg: CreateHITLDetailPayload) -> HITLDetailRequestResult:
        kept = self.asked.setdefault(msg.ti_id, msg)
        return HITLDetailRequestResult(**kept.model_dump(exclude={"type"}))


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    api = Questions()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", api, raising=False)
    return api


@pytest.fixture
def run(database: Database, repository: Repository) -> SyncRun:
    """A run that has seen an upstream of three tags, ready to be committed."""
    run = open_run(database, repository, key=KEY)
    play_stages(database, run, upstream_with(3))
    return run


def commit(run: SyncRun, **parameters: Any) -> CommitVersionOperator:
    return CommitVersionOperator(task_id="commit_version", sync_run=run.id, **parameters)


def stop(run: SyncRun, context: TaskContext, **parameters: Any) -> TaskAwaitingInput:
    with pytest.raises(TaskAwaitingInput) as waits:
        commit(run, **parameters).execute(context.given())  # type: ignore[arg-type]
    return waits.value


def respond(run: SyncRun, stopped: TaskAwaitingInput, context: TaskContext, **event: Any) -> dict[str, Any]:
    """Resumes the task as Airflow does, with an event."""
    assert stopped.method_name == "execute_complete"
    assert stopped.kwargs is not None
    return commit(run).execute_complete(context.given(), event=event, **stopped.kwargs)  # type: ignore[arg-type]


def approve(run: SyncRun, stopped: TaskAwaitingInput, context: TaskContext) -> dict[str, Any]:
    by_anna = {"chosen_options": ["Approve"], "responded_by_user": ANNA, "responded_at": RESPONDED_AT}
    return respond(run, stopped, context, **by_anna)


def test_a_stopped_run_asks_with_every_tag_that_would_go_and_waits_a_day(
    database: Database, run: SyncRun, questions: Questions
) -> None:
    context = TaskContext()
    stopped = stop(run, context)
    assert stopped.timeout == DAY
    asked = questions.asked[context.id]
    assert (asked.subject, asked.options) == ("Remove 27 tags from hello?", ["Approve", "Reject"])
    assert asked.body is not None
    assert asked.body.startswith("27 of 30 tags are gone upstream")
    assert "keeps version 1" in asked.body
    assert [line.split("`")[1] for line in asked.body.splitlines() if line.startswith("| `")] == [
        f"tag-{number:02}" for number in range(3, 30)
    ]
    kept = database.runs.get(run.id)
    assert kept.state is RunState.RUNNING, "a garbage collection keeps what it fetched"
    assert (kept.error or "").startswith("TooManyRemovals: 27 of 30 tags")
    assert "airflow registry-sync run approve 'manual__1'" in (kept.error or "")


def test_who_approves_continues_the_same_run(database: Database, run: SyncRun, questions: Questions) -> None:
    context = TaskContext()
    returned = approve(run, stop(run, context), context)
    assert returned["removals_approved_by"] == "anna"
    assert returned["version"]["content_summary"]["removed"]["docker.tag"]["count"] == 27
    ended = database.runs.get(run.id)
    assert (ended.state, ended.error, ended.removals_approved_by) == (RunState.COMPLETED, None, "anna")
    noted = context.returned[RUN_NOTE_KEY]
    assert (noted["about"], noted["summary"]) == ("hello", "version 2, +0 \N{MINUS SIGN}27 tags")
    assert noted["details"] == [
        "more tags were removed or fewer are left than the remote allows, as anna approved at 2026-11-29 09:30 UTC"
    ]
    assert len(questions.asked) == 1


def test_an_approval_that_was_recorded_meanwhile_needs_no_other_question(
    database: Database, run: SyncRun, questions: Questions
) -> None:
    context = TaskContext()
    stopped = stop(run, context)
    assert stopped.kwargs is not None
    database.runs.approve_removals(run.id, "anna", seen=stopped.kwargs["seen"])
    asked = len(questions.asked)
    returned = commit(run).execute(context.given())  # type: ignore[arg-type]
    assert returned["removals_approved_by"] == "anna"
    at = database.runs.get(run.id).removals_approved_at
    assert at is not None
    assert context.returned[RUN_NOTE_KEY]["details"][0].endswith(f"as anna approved at {at:%Y-%m-%d %H:%M} UTC")
    assert len(questions.asked) == asked


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            {"chosen_options": ["Reject"], "responded_by_user": ANNA, "responded_at": RESPONDED_AT},
            "TooManyRemovals: anna rejected the removals: 27 of 30 tags",
        ),
        (
            {"error": "the timeout has passed", "error_type": "timeout"},
            "TooManyRemovals: nobody approved or rejected this in time: 27 of 30 tags",
        ),
    ],
)
@pytest.mark.usefixtures("questions")
def test_a_run_that_is_rejected_or_forgotten_fails_and_may_still_be_approved_by_the_command(
    database: Database, repository: Repository, run: SyncRun, event: dict[str, Any], said: str
) -> None:
    context = TaskContext()
    stopped = stop(run, context)
    with pytest.raises(AirflowFailException) as failed:
        respond(run, stopped, context, **event)
    assert str(failed.value).startswith(said)
    assert "airflow registry-sync run approve 'manual__1'" in str(failed.value)
    ended = database.runs.get(run.id)
    assert (ended.state, ended.error) == (RunState.FAILED, str(failed.value))
    assert len(database.versions.tags(repository.id)) == 30
    database.runs.approve_removals(run.id, "berta")
    assert commit(run).execute(TaskContext().given())["removals_approved_by"] == "berta"  # type: ignore[arg-type]


def promote(database: Database, repository: Repository) -> None:
    """A tag that comes from elsewhere, which this run would remove as well."""
    source, upstream = database.repositories.ensure("staging"), Upstream()
    upstream.tag("promoted", image("promoted"))
    sync(database, source, upstream)
    request = CopyRequest(source.id, None, TagFilter.parse(["promoted"]), SyncMode.ADDITIVE)
    database.versions.copy(repository.id, request)


@pytest.mark.usefixtures("questions")
def test_what_goes_besides_what_was_shown_is_not_approved(
    database: Database, repository: Repository, run: SyncRun
) -> None:
    context = TaskContext()
    stopped = stop(run, context)
    promote(database, repository)
    with pytest.raises(AirflowFailException, match="anna approved the removal of other tags, not of these: 28 of 31"):
        approve(run, stopped, context)
    assert len(database.versions.tags(repository.id)) == 31


@pytest.mark.usefixtures("questions")
def test_a_cleared_task_asks_again_about_the_same_tags_and_not_under_the_old_list_about_others(
    database: Database, repository: Repository, run: SyncRun
) -> None:
    """Airflow never changes the text of a question."""
    context = TaskContext()
    stop(run, context)
    stop(run, context)
    promote(database, repository)
    with pytest.raises(AirflowFailException, match="TooManyRemovals: 28 of 31 tags"):
        commit(run).execute(context.given())  # type: ignore[arg-type]


def test_a_run_does_not_wait_where_it_is_not_to(
    run: SyncRun, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AirflowFailException, match="TooManyRemovals"):
        commit(run, approval_timeout=timedelta(0)).execute(TaskContext().given())  # type: ignore[arg-type]
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__APPROVAL_HOURS", "0")
    with pytest.raises(AirflowFailException, match="TooManyRemovals"):
        commit(run).execute(TaskContext().given())  # type: ignore[arg-type]
    assert questions.asked == {}
    assert stop(run, TaskContext(), approval_timeout=timedelta(hours=2)).timeout == timedelta(hours=2)


def test_a_question_lists_a_thousand_tags_and_counts_the_rest() -> None:
    refused = TooManyRemovals("all tags are gone upstream")
    refused.tags = tuple((f"v{number:04}", "sha256:" + "0" * 64) for number in range(1002))
    subject, body = question(refused, "hello", None)
    assert subject == "Remove 1,002 tags from hello?"
    assert body.endswith("\n\nAnd 2 more.")
    assert "ends this run.\n" in body
    assert body.count("| `v") == 1000


class _Told(MirrorNotifier):
    """Remembers what it is called for."""

    def __init__(self) -> None:
        super().__init__()
        self.of: list[Any] = []

    def notify(self, context: Any) -> None:
        self.of.append(context["exception"])


@pytest.mark.parametrize("kind", ApprovalRequired.__subclasses__())
def test_what_waits_for_an_approval_is_of_the_guard(kind: type[ApprovalRequired]) -> None:
    assert _outcome(kind("why")) is MirrorOutcome.STOPPED


def test_few_tags_are_asked_about_with_those_that_the_version_would_have(
    database: Database, repository: Repository, questions: Questions
) -> None:
    remote = database.remotes.ensure(RemoteSpec.parse("few", "https://registry.example", "few", min_tags=40))
    run = database.runs.begin(
        KEY, repository_id=repository.id, remote_id=remote.id, remote=remote.spec, mode=SyncMode.ADDITIVE
    )
    play_stages(database, run, upstream_with(31))
    context, notifier = TaskContext(), _Told()
    stopped = stop(run, context, on_failure_callback=[notifier])
    assert [type(error) for error in notifier.of] == [TooFewTags], "people hear of it while it waits"
    asked = questions.asked[context.id]
    assert asked.subject == "Make a version of hello with only 31 tags?"
    assert asked.body is not None
    assert asked.body.startswith("the version would have 31 tags, fewer than min_tags 40 of remote 'few' requires")
    assert "**Approve** makes the version with only the tags below" in asked.body
    rejected = {"chosen_options": ["Reject"], "responded_by_user": ANNA, "responded_at": RESPONDED_AT}
    with pytest.raises(AirflowFailException, match=r"^TooFewTags: anna rejected the few tags: the version"):
        respond(run, stopped, context, **rejected)
