"""What a person who watches the grid sees of a run: its note, written when it has ended."""

from __future__ import annotations

import functools
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from registry_sync.domain.runs import DagRunEnd
from registry_sync.hooks import dag_runs
from registry_sync.hooks.dag_runs import (
    CANCELED_NOTE,
    CANCELED_NOTES,
    NOTE_AUTHOR,
    cancel_run,
    end_of,
    has_canceled_note,
)
from registry_sync.hooks.stores import open_database
from registry_sync.operators.task_values import find_sync_run
from support.filling import place, push
from support.hostile_registry import HostileRegistry, reply
from support.images import ContentBuilder
from support.registry import RegistryServer
from support.serving import serve
from support.shapes import documented_example, many_tags
from support.task_contexts import sync_dag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.dag_runs import FinishedRun, InProcessSync


def dag_run(run: FinishedRun, session: Any) -> Any:
    from airflow.models import DagRun

    return session.query(DagRun).filter(DagRun.dag_id == run.dag_id, DagRun.run_id == run.run_id).one()


def note(run: FinishedRun) -> str | None:
    from airflow.utils.session import create_session

    with create_session() as session:
        found: str | None = dag_run(run, session).note
        return found


def end_again(run: FinishedRun, *, note: str, author: str | None = None) -> None:
    """Ends a run once more, as the scheduler does with one that was cleared, after a note was left with it."""
    from airflow.utils.session import create_session

    with create_session() as session:
        ended = dag_run(run, session)
        ended.dag_run_note.content, ended.dag_run_note.user_id = note, author
        session.flush()
        ended.notify_dagrun_state_changed(msg="success")


def end_as(run: FinishedRun, state: str, dag: Any = None) -> None:
    """Ends a run as the scheduler does, which has its ``dag``, or as a person does who marks it in Airflow."""
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState

    with create_session() as session:
        ended = dag_run(run, session)
        ended.dag = dag
        ended.set_state(DagRunState(state))
        session.flush()
        ended.notify_dagrun_state_changed(msg=state)


def test_a_run_that_would_remove_too_much_says_so_and_a_parameter_lets_another_pass(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    content = many_tags(tags=30, images=5)
    place(registry, "shrinking", content)
    conf = {"repository": "shrinking", "url": registry.url, "upstream_name": "shrinking"}
    first = str(note(sync_in_process(**conf)))
    assert re.fullmatch(r"shrinking: version 1, \+30 \N{MINUS SIGN}0 tags, [0-9.]+ [KM]iB", first)
    for name in list(content.tags)[:27]:
        registry.delete_tag("shrinking", name)
    stopped = sync_in_process(**conf)
    assert (stopped.state, stopped.tasks["commit_version"]) == ("failed", "failed")
    said = note(stopped)
    assert said is not None
    assert said.startswith("shrinking: failed: 27 of 30 tags are gone")
    assert f"airflow registry-sync run approve '{stopped.run_id}'" in said
    passed = sync_in_process(**conf, approve_removals=True)
    approved = (
        r"\n- more tags were removed or fewer are left than the remote allows, as dag_test approved at [\d :-]+ UTC"
    )
    assert passed.state == "success"
    assert re.fullmatch(approved, "\n".join(["", *str(note(passed)).splitlines()[2:]]))
    assert str(note(passed)).startswith("shrinking: version 2, +0 \N{MINUS SIGN}27 tags\n")
    assert passed.version is not None
    assert passed.version["content_summary"]["removed"]["docker.tag"]["count"] == 27
    with open_database() as database:
        assert len(database.versions.tags(database.repositories.by_name("shrinking").id)) == 3


def test_a_run_with_held_tags_names_them(sync_in_process: InProcessSync, registry: RegistryServer) -> None:
    content = documented_example()
    push(registry, "partly", content)
    registry.delete_blob("partly", content.manifests[content.tags["v1"]].blobs[0])
    run = sync_in_process(repository="partly", url=registry.url, upstream_name="partly")
    assert run.state == "success"
    said = note(run)
    assert said is not None
    assert said.splitlines()[0].endswith("1 held: v1")
    assert "- 1 tag is held: v1 is omitted" in said


def test_a_tag_that_was_requested_by_name_and_is_missing_is_named_where_people_look(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    push(registry, "named", documented_example())
    conf = {"repository": "named", "url": registry.url, "upstream_name": "named", "tags": ["v1", "latst"]}
    said = "\n\n- include_tags names 1 tag that the upstream does not have: latst"
    first = sync_in_process(**conf)
    assert first.state == "success"
    assert str(note(first)).endswith(said)
    again = sync_in_process(**conf)
    assert (again.state, again.tasks["commit_version"]) == ("success", "skipped")
    assert note(again) == f"named: unchanged since version 1, 1 tag{said}"
    changed = sync_in_process(**{**conf, "tags": ["latst", "v1", "other"], "mode": "additive"})
    assert "2 tags that the upstream does not have: latst, other" in str(note(changed))
    assert "\n\n- remote 'named' " in str(note(changed))


def test_a_run_that_could_not_look_up_signatures_says_why(sync_in_process: InProcessSync) -> None:
    content = documented_example()
    with serve(HostileRegistry(), "refusing", content) as server:
        for digest in content.manifests:
            server.on("GET", f"/v2/refusing/referrers/{digest}", reply(403))
        run = sync_in_process(repository="refusing", url=server.base, upstream_name="refusing")
    said = "\n\n- the version may lack referrers: the referrers of manifests of refusing cannot be listed"
    assert said in str(note(run))


def test_a_note_of_ours_is_replaced_and_one_of_a_person_stays(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    push(registry, "plain", documented_example())
    run = sync_in_process(repository="plain", url=registry.url, upstream_name="plain")
    written = note(run)
    end_again(run, note="registry-sync: 1 tag is held: v1 is omitted (gone)")  # as earlier releases wrote it
    assert note(run) == written
    end_again(run, note="looked at on Friday", author="7")
    assert note(run) == "looked at on Friday"
    end_again(run, note=CANCELED_NOTE, author=NOTE_AUTHOR)
    assert note(run) == CANCELED_NOTE, "it is how a task over REST is known to be canceled"


def test_a_run_whose_platforms_leave_tags_out_names_them_also_when_nothing_changed(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    build = ContentBuilder(seed=61)
    for name, architecture in (("linux", "amd64"), ("power", "ppc64le")):
        image = build.image([build.blob(50)])
        platform = {"platform": {"os": "linux", "architecture": architecture}}
        build.tag(name, build.index([image], descriptors={image: platform}))
    push(registry, "some-platforms", build.content())
    conf = {"url": registry.url, "upstream_name": "some-platforms", "platforms": ["linux/amd64"]}
    for state in ("success", "skipped"):
        run = sync_in_process(repository="some-platforms", **conf)
        assert (run.state, run.tasks["commit_version"]) == ("success", state)
        assert "\n\n- 1 tag has none of the platforms linux/amd64 and is excluded: power" in str(note(run))


def test_a_parameter_that_the_dag_does_not_have_is_named_and_stays_with_a_run_that_is_marked_as_successful(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    run = sync_in_process(repository="misspelt", url=registry.url, upstream_name="any", tgas="x")
    said = "misspelt: failed: the DAG 'registry_sync' has no parameter 'tgas' (did you mean 'tags'?); it has "
    assert (run.state, str(note(run))[: len(said)]) == ("failed", said)
    written = note(run)
    end_as(run, "success")
    assert note(run) == written


def test_a_run_whose_tasks_said_nothing_keeps_its_note_when_it_is_marked_as_successful(
    sync_in_process: InProcessSync, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry_sync.operators.list_tags.open_stage", lambda *_: None)
    run = sync_in_process(repository="lost", url=registry.url, upstream_name="any")
    end_as(run, "failed", sync_dag())
    said = "lost: failed: no task reported an error: a worker was lost, or the run was ended in Airflow"
    assert (run.state, note(run)) == ("failed", said)
    end_as(run, "success")
    assert note(run) == said


def test_a_run_whose_repository_was_deleted_meanwhile_says_so(
    sync_in_process: InProcessSync, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(registry, "deleted", documented_example())

    def found_after_deletion(*given: Any) -> str:
        with open_database() as database:
            database.repositories.delete(database.repositories.by_name("deleted").id)
        return find_sync_run(*given)

    monkeypatch.setattr("registry_sync.operators.commit_version.find_sync_run", found_after_deletion)
    run = sync_in_process(repository="deleted", url=registry.url, upstream_name="deleted")
    said = (
        "deleted: failed: the repository 'deleted' was deleted after this run had started, and the sync ended with it"
    )
    assert (run.state, str(note(run))[: len(said)]) == ("failed", said)


def test_a_cleared_run_says_nothing_of_what_its_tasks_did_before(
    sync_in_process: InProcessSync, registry: RegistryServer
) -> None:
    from airflow.utils.session import create_session

    push(registry, "cleared", documented_example())
    run = sync_in_process(repository="cleared", url=registry.url, upstream_name="cleared")
    written = note(run)
    for state, said in (("success", written), ("upstream_failed", None), ("skipped", None)):
        with create_session() as session:
            cleared = dag_run(run, session)
            cleared.start_date, cleared.dag_run_note = datetime.now(timezone.utc), None
            (commit,) = (one for one in cleared.get_task_instances(session=session) if one.task_id == "commit_version")
            commit.state = state
        end_as(run, "success")
        assert note(run) == said


@pytest.mark.parametrize("before", ["canceled: the sync is running", None])
def test_a_canceled_run_names_its_repository(
    sync_in_process: InProcessSync, registry: RegistryServer, before: str | None
) -> None:
    from airflow.models import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState

    push(registry, "canceled", documented_example())
    run = sync_in_process(repository="canceled", url=registry.url, upstream_name="canceled")
    with create_session() as session:
        running = dag_run(run, session)
        running.set_state(DagRunState.RUNNING)
        running.dag_run_note = None
        session.flush()
        if before is not None:
            running.note = (before, NOTE_AUTHOR)
    cancel_run(run.dag_id, run.run_id, CANCELED_NOTES[1], by="anna")
    assert note(run) == "Canceled from the command line by anna: canceled"
    with create_session() as session:
        ended = dag_run(run, session)
        assert end_of(ended) is DagRunEnd.CANCELED
        found = session.query(DagRun).filter(has_canceled_note(), DagRun.run_id == run.run_id).all()
        assert found == [ended]


def leave(run: FinishedRun, text: str | None, author: str | None = "7") -> None:
    """Leaves a note with a run, or none, as another process does."""
    from airflow.utils.session import create_session

    with create_session(scoped=False) as session:
        found = dag_run(run, session)
        if text is None:
            found.dag_run_note = None
        elif found.dag_run_note is None:
            found.note = (text, author)
        else:
            found.dag_run_note.content, found.dag_run_note.user_id = text, author


@pytest.mark.parametrize(
    ("before", "meanwhile", "after"),
    [
        (None, "look at this", "look at this"),
        ("raced: the sync is running", None, None),
        ("raced: the sync is running", "look at this", "look at this"),
        (None, None, "raced: the sync is running"),
    ],
)
def test_the_scheduler_goes_on_when_a_note_is_written_while_it_starts_the_run(
    sync_in_process: InProcessSync,
    registry: RegistryServer,
    before: str | None,
    meanwhile: str | None,
    after: str | None,
) -> None:
    """Its session is that of all runs that it starts, and it ends with an error of it."""
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState

    push(registry, "raced", documented_example())
    run = sync_in_process(repository="raced", url=registry.url, upstream_name="raced")
    leave(run, None)
    if before is not None:
        leave(run, before, NOTE_AUTHOR)
    with create_session(scoped=False) as session:
        starting = dag_run(run, session)
        assert starting.note == before
        leave(run, meanwhile)
        starting.dag = sync_dag()
        starting.set_state(DagRunState.RUNNING)
        starting.notify_dagrun_state_changed(msg="started")
        assert starting.note == after
    assert note(run) == after
    with create_session() as session:
        assert dag_run(run, session).state == DagRunState.RUNNING


def test_a_run_that_starts_while_it_is_canceled_is_noted_as_canceled(
    sync_in_process: InProcessSync, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState

    push(registry, "starting", documented_example())
    run = sync_in_process(repository="starting", url=registry.url, upstream_name="starting")
    leave(run, None)
    with create_session() as session:
        dag_run(run, session).set_state(DagRunState.QUEUED)

    def noted(conf: Any) -> str | None:
        leave(run, "starting: the sync is running", NOTE_AUTHOR)
        return dag_runs.conf_repository.__wrapped__(conf)  # type: ignore[attr-defined]

    functools.update_wrapper(noted, dag_runs.conf_repository)
    monkeypatch.setattr(dag_runs, "conf_repository", noted)
    cancel_run(run.dag_id, run.run_id, CANCELED_NOTES[1], by="anna")
    assert note(run) == "Canceled from the command line by anna: starting"


@pytest.mark.usefixtures("event_listeners")
def test_a_run_that_waits_for_a_person_says_for_what(sync_in_process: InProcessSync, registry: RegistryServer) -> None:
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session

    push(registry, "waiting", documented_example())
    run = sync_in_process(repository="waiting", url=registry.url, upstream_name="waiting")

    def ask(task_id: str, before: str | None) -> Any:
        """Records the question of a task as the API server does, beside the note ``before``."""
        with create_session() as session:
            asking = dag_run(run, session)
            if before is not None:
                asking.dag_run_note.content = before
            else:
                asking.dag_run_note = None
            session.flush()
            (task,) = (one for one in asking.get_task_instances(session=session) if one.task_id == task_id)
            question = HITLDetail(ti_id=task.id, options=["Approve"], subject="Remove 3 tags from waiting?", params={})
            session.add(question)
            return task.id

    def answer(id_: Any, at: datetime | None) -> None:
        with create_session() as session:
            session.get(HITLDetail, id_).responded_at = at

    ask("list_tags", "waiting: the sync is running")
    assert note(run) == "waiting: the sync is running", "the question of another operator"
    asked = ask("commit_version", "waiting: the sync is running")
    said = "waiting: waits for an approval: Remove 3 tags from waiting?"
    assert note(run) == said
    answer(asked, datetime.now(timezone.utc))
    assert note(run) == "waiting: the sync is running"
    answer(asked, None)  # as where the task was cleared, and asks again
    assert note(run) == said
    end_as(run, "success")
    assert str(note(run)).startswith("waiting: version 1, "), "it has ended"
    answer(asked, datetime.now(timezone.utc))
    assert str(note(run)).startswith("waiting: version 1, ")


@pytest.fixture
def event_listeners() -> Iterator[None]:
    """What the API server sets up, for the time of a test."""
    from airflow.models.hitl import HITLDetail
    from sqlalchemy import event

    from registry_sync import listener

    listener.follow_questions()
    listener.follow_questions()
    yield
    for change in listener.QUESTION_EVENTS:
        event.remove(HITLDetail, change, listener.follow_question)
