"""What a person who watches the grid sees of a run: its note, written when it has ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from registry_sync.hooks.dag_runs import CANCELED_NOTE, NOTE_AUTHOR
from registry_sync.hooks.stores import open_database
from support.filling import place, push
from support.hostile_registry import HostileRegistry, reply
from support.images import ContentBuilder
from support.registry import RegistryServer
from support.serving import serve
from support.shapes import documented_example, many_tags

if TYPE_CHECKING:
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
    approved = "\n\n- more tags were removed than the remote allows, as dag_test approved"
    assert (passed.state, "\n".join(["", "", *str(note(passed)).splitlines()[2:]])) == ("success", approved)
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
