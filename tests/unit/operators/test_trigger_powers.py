"""What whoever triggers a run cannot do: approve, remove, replace, or misspell."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.db.database import Database
from registry_sync.domain.platforms import parse_platforms
from registry_sync.domain.records import Repository
from registry_sync.domain.runs import Authority, RunKey
from registry_sync.domain.serving import DistributionSpec
from registry_sync.hooks.settings import load_settings
from registry_sync.operators.collect_orphans import CollectOrphansOperator
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.plan_blobs import PlanBlobsOperator
from registry_sync.operators.promote_tags import PromoteTagsOperator
from registry_sync.operators.publish_version import PublishVersionOperator
from registry_sync.operators.reclaim_blobs import ReclaimBlobsOperator
from registry_sync.operators.roll_back_version import RollBackVersionOperator
from support.hostile_registry import HostileRegistry
from support.metadata import Upstream, image, open_run, play_stages, sync, two_versions
from support.ready_databases import filled
from support.task_contexts import TaskContext, rendered, sync_dag
from support.triggers import list_tags, refusal

# -- templates ---------------------------------------------------------------------------------------------------------


def test_airflow_shows_the_fields_that_are_set_and_the_others_are_those_of_the_task_all_the_same() -> None:
    """It takes half a millisecond for each that it shows, and a listing has 27."""
    written = {"tags": "{{ params.tags or '' }}", "platforms": "{{ params.platforms or '' }}", "semver": None}
    task = ListTagsOperator(task_id="list_tags", repository="{{ params.repository }}", **written)
    rendered(task, TaskContext(conf={"repository": "app", "tags": "3.*"}))
    assert set(task.template_fields) == {"repository", "tags", "mode", "preview"}
    assert (task.repository, task.tags, task.platforms, task.semver) == ("app", "3.*", "", None)
    assert task.literal_fields(TaskContext().given()) == set(type(task).template_fields) - {
        "repository",
        "tags",
        "platforms",
    }


# -- approvals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "conf", "began_by", "is_approved"),
    [
        ("{{ params.yes }}", {"yes": True}, Authority.TRIGGER, False),
        ("{{ params.yes }}", {"yes": True}, Authority.AUTHOR, False),
        ("{{ params.yes }}", {"yes": True}, Authority.REQUEST, False),
        (True, {"yes": False}, Authority.TRIGGER, False),
        (True, {"yes": False}, Authority.AUTHOR, True),
        ("{{ params.yes }}", None, Authority.AUTHOR, True),
    ],
)
def test_who_triggers_a_run_approves_no_removals(
    database: Database,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    written: Any,
    conf: Any,
    began_by: Authority,
    is_approved: bool,
) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    repository, upstream = database.repositories.ensure("r"), Upstream()
    for number in range(30):
        upstream.tag(f"tag-{number}", image(str(number)))
    sync(database, repository, upstream)
    few = Upstream()
    few.tag("tag-1", image("1"))
    run = open_run(database, repository, key=RunKey("own", "manual__1"), authority=began_by)
    play_stages(database, run, few)
    with DAG("own", schedule=None, params={"yes": Param(True, type="boolean")}) as dag:
        task = CommitVersionOperator(task_id="commit_version", sync_run=run.id, approve_removals=written)
    context = rendered(task, TaskContext(conf=conf, dag_id="own"), dag)
    if is_approved:
        assert task.execute(context)["version"]["number"] == 2
        return
    with pytest.raises(AirflowFailException, match="TooManyRemovals"):
        task.execute(context)
    assert len(database.versions.tags(repository.id)) == 30


def test_an_approval_in_the_code_is_not_for_a_sync_that_the_trigger_names() -> None:
    with DAG("own", schedule=None, params={"sync_run": Param("", type="string")}) as dag:
        task = CommitVersionOperator(task_id="commit", sync_run="{{ params.sync_run }}", approve_removals=True)
    context = rendered(task, TaskContext(conf={"sync_run": "somebody's"}, dag_id="own"), dag)
    assert task.authority(context, load_settings()) is Authority.TRIGGER


@pytest.mark.parametrize("key", [RunKey("other", "manual__1"), RunKey("own", "manual__2")])
def test_an_approval_in_the_code_is_not_for_a_sync_of_another_dag_run(
    database: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, key: RunKey
) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    repository, upstream, few = database.repositories.ensure("r"), Upstream(), Upstream()
    for number in range(30):
        upstream.tag(f"tag-{number}", image(str(number)))
    sync(database, repository, upstream)
    few.tag("tag-1", image("1"))
    run = open_run(database, repository, key=key, authority=Authority.AUTHOR)
    play_stages(database, run, few)
    with DAG("own", schedule=None) as dag:
        task = CommitVersionOperator(task_id="commit", sync_run=run.id, approve_removals=True)
    with pytest.raises(AirflowFailException, match="TooManyRemovals"):
        task.execute(rendered(task, TaskContext(dag_id="own", run_id="manual__1"), dag))


# -- what was asked for over REST --------------------------------------------------------------------------------------


def test_a_run_id_that_somebody_types_in_grants_nothing(database: Database, listener: HostileRegistry) -> None:
    run_id = "registry_sync__11111111-2222-3333-4444-555555555555"
    conf = {"repository": "mine", "url": listener.base, "upstream_name": "open/app"}
    task = sync_dag().get_task("list_tags").prepare_for_execution()
    with pytest.raises(AirflowFailException, match="was not requested over REST"):
        task.execute(rendered(task, TaskContext(conf=conf, dag_id="registry_sync", run_id=run_id)))
    assert listener.asked() == []


# -- what else changes what is there -----------------------------------------------------------------------------------


def _source_and_theirs(database: Database) -> Repository:
    two_versions(database, "source")
    return two_versions(database, "theirs")


WHAT = {"what": Param("theirs", type="string")}


@pytest.mark.parametrize(
    ("operator", "written", "is_refused"),
    [
        (ReclaimBlobsOperator, {"repositories": "{{ params.what }}"}, True),
        (ReclaimBlobsOperator, {"repositories": "{{ params.what }}", "preview": True}, False),
        (CollectOrphansOperator, {"grace_hours": "{{ 0 if params.what else 1 }}"}, True),
        (CollectOrphansOperator, {"grace_hours": "{{ 48 if params.what else 1 }}"}, False),
        (RollBackVersionOperator, {"repository": "{{ params.what }}", "number": "1"}, True),
        (PromoteTagsOperator, {"source": "source", "target": "{{ params.what }}"}, True),
        (PromoteTagsOperator, {"source": "source", "target": "{{ params.what }}-new"}, False),
        (PublishVersionOperator, {"base_path": "new", "repository": "{{ params.what }}", "number": 1}, True),
        (PublishVersionOperator, {"base_path": "theirs", "repository": "{{ params.what }}", "number": 1}, True),
        (PublishVersionOperator, {"base_path": "theirs", "repository": "{{ params.what }}", "number": 2}, False),
    ],
)
def test_who_triggers_a_run_removes_and_replaces_nothing(
    database: Database,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
    operator: Any,
    written: dict[str, Any],
    is_refused: bool,
) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    made = filled(database, _source_and_theirs)
    database.distributions.create(DistributionSpec("theirs", "theirs", made.id, 2))
    runs = [
        (is_refused, {"what": "theirs"}, {}),
        (False, {}, {}),
        (False, {"what": "theirs"}, {"trust_triggers": True}),
    ]
    for fails, conf, trust in runs:
        with DAG("own", schedule=None, params=WHAT) as dag:
            task = operator(task_id="task", **written, **trust)
        context = rendered(task, TaskContext(conf=conf), dag)
        if fails:
            with pytest.raises(AirflowFailException, match="TriggerRefused"):
                task.execute(context)
        else:
            task.execute(context)


# -- what is not understood --------------------------------------------------------------------------------------------


def test_an_unknown_parameter_is_refused_with_the_near_name(database: Database, listener: HostileRegistry) -> None:
    said = refusal(repositry="mine", repository="hello", url=listener.base, upstream_name="open/app")
    assert "the DAG 'registry_sync' has no parameter 'repositry' (did you mean 'repository'?)" in said
    assert listener.asked() == []
    assert database.repositories.page().total_count == 0


def test_every_operator_refuses_parameters_that_its_dag_does_not_have(database: Database) -> None:
    with DAG("own", schedule=None, params={"preview": Param(False, type="boolean")}) as dag:
        task = PlanBlobsOperator(task_id="plan_blobs", sync_run="x")
    with pytest.raises(AirflowFailException, match="no parameter 'preveiw'"):
        task.execute(rendered(task, TaskContext(conf={"preveiw": True}), dag))


def test_a_dag_without_parameters_reads_what_it_likes(database: Database) -> None:
    with DAG("own", schedule=None) as dag:
        task = PlanBlobsOperator(task_id="plan_blobs", sync_run="{{ dag_run.conf['x'] }}")
    with pytest.raises(AirflowFailException, match="no sync run 'y'"):
        task.execute(rendered(task, TaskContext(conf={"x": "y"}), dag))


def test_a_parameter_that_an_operator_does_not_have_breaks_the_dag() -> None:
    with pytest.raises(TypeError, match="repositry"):
        ListTagsOperator(task_id="list_tags", repository="r", repositry="r")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="repository"):
        ListTagsOperator(task_id="list_tags", repositry="r")  # type: ignore[call-arg]


def test_the_form_requires_the_repository_and_strips_blanks(database: Database, listener: HostileRegistry) -> None:
    params = copy.deepcopy(sync_dag().params)  # a parameter keeps the value that it was asked about
    assert params.get_param("repository").schema["type"] == "string"
    with pytest.raises(Exception, match="No value passed"):
        params.validate()
    typed = {
        "repository": " mine ",
        "url": f" {listener.base}\n",
        "upstream_name": "open/app ",
        "tags": ["a\n", " b ", "", "  "],
        "exclude_tags": ["\tc"],
        "platforms": [" linux/amd64\n", ""],
    }
    for name, value in typed.items():
        params.get_param(name).resolve(value)
    list_tags(**typed)
    spec = database.remotes.by_name("mine").spec
    assert (spec.url.written, spec.upstream_name) == (listener.base, "open/app")
    assert (spec.include_tags, spec.exclude_tags) == (("a", "b"), ("c",))
    assert spec.platforms == parse_platforms(["linux/amd64"])
