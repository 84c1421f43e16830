"""A mirror that would lose too many tags: it stops, says what would go and how to approve it, and then may go on."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.db.database import Database
from registry_sync.domain.records import Repository, SyncMode
from registry_sync.domain.references import TagFilter
from registry_sync.domain.runs import RunKey, RunState, RunUsage, SyncRun
from registry_sync.domain.version_history import CopyRequest
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.run_notes import RUN_NOTE_KEY, RunNote, compose, held_note
from registry_sync.operators.task_values import as_flag
from support.metadata import Upstream, image, open_run, play_stages, sync, upstream_with
from support.task_contexts import TaskContext

KEY = RunKey("mirror", "manual__1")


def shrunk(database: Database, repository: Repository) -> SyncRun:
    """A run that has seen an upstream of three tags, ready to be committed."""
    run = open_run(database, repository, key=KEY)
    play_stages(database, run, upstream_with(3))
    return run


def commit(run: SyncRun, context: TaskContext, **parameters: Any) -> dict[str, Any]:
    operator = CommitVersionOperator(task_id="commit_version", sync_run=run.id, **parameters)
    return operator.execute(context.given())  # type: ignore[arg-type]


def test_a_run_that_would_remove_too_much_stops_and_says_what_and_how_to_go_on(
    database: Database, repository: Repository
) -> None:
    run, context = shrunk(database, repository), TaskContext()
    with pytest.raises(AirflowFailException) as failed:
        commit(run, context)
    said = str(failed.value)
    assert said.startswith("TooManyRemovals: 27 of 30 tags are gone")
    assert "tag-03, tag-04" in said
    assert "airflow registry-sync run approve 'manual__1' --dag-id 'mirror'" in said
    assert "approve_removals" in said
    assert context.returned[RUN_NOTE_KEY]["summary"] == said.replace("TooManyRemovals", "failed", 1)
    stopped = database.runs.get(run.id)
    assert (stopped.state, stopped.error) == (RunState.FAILED, said)
    assert len(database.versions.tags(repository.id)) == 30


def test_once_approved_the_same_run_commits(database: Database, repository: Repository) -> None:
    run = shrunk(database, repository)
    with pytest.raises(AirflowFailException):
        commit(run, TaskContext())
    database.runs.approve_removals(run.id, "anna")
    returned = commit(run, TaskContext())
    assert returned["version"]["content_summary"]["removed"]["docker.tag"]["count"] == 27
    assert database.runs.get(run.id).state is RunState.COMPLETED


def test_an_approval_is_not_for_what_the_run_lists_when_it_begins_anew(
    database: Database, repository: Repository
) -> None:
    run = shrunk(database, repository)
    with pytest.raises(AirflowFailException):
        commit(run, TaskContext())
    database.runs.approve_removals(run.id, "anna")
    again = shrunk(database, repository)
    assert again.id == run.id
    with pytest.raises(AirflowFailException, match="TooManyRemovals"):
        commit(again, TaskContext())


def test_what_goes_now_and_was_not_approved_stops_the_run_again(database: Database, repository: Repository) -> None:
    run, context = shrunk(database, repository), TaskContext()
    with pytest.raises(AirflowFailException):
        commit(run, TaskContext())
    database.runs.approve_removals(run.id, "anna")
    source, upstream = database.repositories.ensure("staging"), Upstream()
    upstream.tag("promoted", image("promoted"))
    sync(database, source, upstream)
    database.versions.copy(
        repository.id, CopyRequest(source.id, None, TagFilter.parse(["promoted"]), SyncMode.ADDITIVE)
    )
    with pytest.raises(AirflowFailException) as failed:
        commit(run, context)
    said = str(failed.value)
    assert said.startswith("TooManyRemovals: anna approved the removal of other tags, not of these: 28 of 31 tags")
    assert "airflow registry-sync run approve 'manual__1'" in said
    assert context.returned[RUN_NOTE_KEY]["summary"] == said.replace("TooManyRemovals", "failed", 1)
    returned = commit(run, TaskContext(dag_id=KEY.dag_id), approve_removals=True)
    assert returned["version"]["content_summary"]["removed"]["docker.tag"]["count"] == 28


def test_a_parameter_approves_in_advance_and_a_repeat_gives_the_same_version(
    database: Database, repository: Repository
) -> None:
    run = shrunk(database, repository)
    first = commit(run, TaskContext(dag_id=KEY.dag_id), approve_removals="True")
    assert first["version"]["number"] == 2
    assert commit(run, TaskContext(dag_id=KEY.dag_id), approve_removals="True") == first


def test_a_parameter_that_is_neither_yes_nor_no_removes_nothing(database: Database, repository: Repository) -> None:
    run = shrunk(database, repository)
    with pytest.raises(AirflowFailException, match="approve_removals is 'ja'; it is true or false"):
        commit(run, TaskContext(), approve_removals="ja")
    assert len(database.versions.tags(repository.id)) == 30


@pytest.mark.parametrize(
    ("given", "is_yes"), [("True", True), (True, True), ("false", False), ("", False), (None, False)]
)
def test_a_yes_or_no_is_read_out_of_a_template(given: object, is_yes: bool) -> None:
    assert as_flag(given, "approve_removals") is is_yes


def test_a_run_with_holds_notes_them(database: Database, repository: Repository) -> None:
    upstream = upstream_with(30)
    upstream.tag("new", image("new"))
    upstream.tag("tag-00", image("moved"))
    upstream.tag("bad", image("bad"))
    run, context = open_run(database, repository, key=KEY), TaskContext()
    play_stages(database, run, upstream, held={"bad": "not JSON", "tag-00": "no such blob"})
    returned = commit(run, context)
    kept = database.versions.tags(repository.id)["tag-00"]  # type: ignore[index]
    held = f"2 tags are held: bad is omitted (not JSON); tag-00 is kept at {kept[:19]} (no such blob)"
    noted = context.returned[RUN_NOTE_KEY]
    assert noted["summary"] == "version 2, +1 \N{MINUS SIGN}0 tags, 2 held: bad, tag-00"
    assert (noted["about"], noted["details"], returned["hold_count"]) == ("hello", [held], 2)
    assert [told["hold_count"] for told in context.reported()] == [2]


def test_a_run_that_makes_no_version_because_of_its_holds_notes_why(database: Database, repository: Repository) -> None:
    upstream = upstream_with(30)
    upstream.tag("tag-00", image("moved"))
    run, context = open_run(database, repository, key=KEY), TaskContext()
    play_stages(database, run, upstream, held={"tag-00": "no such blob"})
    with pytest.raises(AirflowFailException, match="NothingSynced") as failed:
        commit(run, context)
    assert context.returned[RUN_NOTE_KEY]["summary"] == str(failed.value).replace("NothingSynced", "failed", 1)
    assert "no such blob" in context.returned[RUN_NOTE_KEY]["summary"]


def test_a_run_notes_what_it_was_about_and_what_it_changed(database: Database, repository: Repository) -> None:
    run, context = open_run(database, repository, key=KEY), TaskContext()
    play_stages(database, run, upstream_with(31))
    database.runs.add_usage(run.id, RunUsage(received_bytes=3 * 1024 * 1024))
    commit(run, context)
    summary = "version 2, +1 \N{MINUS SIGN}0 tags, 3.0 MiB"
    assert context.returned == {RUN_NOTE_KEY: {"about": "hello", "summary": summary, "details": []}}
    again, second = open_run(database, repository, key=RunKey("mirror", "manual__2")), TaskContext()
    play_stages(database, again, upstream_with(31))
    commit(again, second)
    assert second.returned[RUN_NOTE_KEY]["summary"] == "unchanged since version 2"


def test_the_note_of_a_run_has_one_line_for_each_sync_and_the_details_below() -> None:
    """The tasks of one sync say the same once, and the last summary counts."""
    failed = [RunNote("hello", "failed: no space left"), RunNote("hello", "failed: no space left")]
    assert compose(failed) == "hello: failed: no space left"
    changed = RunNote("hello", None, ("remote 'hello' changed: policy",))
    done = RunNote("hello", "version 2, +1 tags", ("1 tag is held: a",))
    assert compose([changed, *failed, done]) == (
        "hello: version 2, +1 tags\n\n- remote 'hello' changed: policy\n- 1 tag is held: a"
    )
    assert compose([changed]) == "hello: remote 'hello' changed: policy"
    two = compose([RunNote("a (x.list)", "unchanged since version 1"), RunNote("b (y.list)", "version 3", ("1 held",))])
    assert two == "a (x.list): unchanged since version 1\n\nb (y.list): version 3\n\n- b (y.list): 1 held"
    assert compose([RunNote.of_xcom("a sentence of an earlier release")]) == "a sentence of an earlier release"


def test_a_long_name_leaves_room_for_the_counts_in_the_first_line_of_a_note() -> None:
    name = f"team/{'a' * 124}/{'b' * 125}"
    first, *others = compose([RunNote(name, "version 3, +61 tags", ("1 held",))]).split("\n")
    assert first == f"team/{'a' * 29}\N{HORIZONTAL ELLIPSIS}{'b' * 25}: version 3, +61 tags"
    assert others == ["", "- 1 held", f"- the name in full: {name}"]
    assert compose([RunNote("a" * 60, "version 3")]) == f"{'a' * 60}: version 3"
    assert compose([]) == ""


def test_a_note_of_many_holds_names_the_first_and_counts_the_rest() -> None:
    holds = [{"tag": f"t{number}", "digest": None, "reason": "r"} for number in range(20)]
    assert held_note(holds, 1000).endswith("t4 is omitted (r); 995 more")
    assert held_note(holds[:1], 1) == "1 tag is held: t0 is omitted (r)"
