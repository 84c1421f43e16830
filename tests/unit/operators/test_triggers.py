"""What reaches a registry of what whoever triggers a run says: the DAG's own first task, in the test's process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from airflow.sdk import DAG, BaseHook, Connection, Param
from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels._generated import ConnectionResponse
from airflow.sdk.exceptions import AirflowFailException

from registry_sync.db.database import Database
from registry_sync.domain.remote import RemoteSpec
from registry_sync.domain.runs import Authority
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.clients import open_client
from registry_sync.hooks.settings import load_settings
from registry_sync.operators.commit_version import CommitVersionOperator
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.run_notes import RUN_NOTE_KEY
from registry_sync.operators.stage import open_stage
from support.hostile_registry import HostileRegistry, reply
from support.task_contexts import TaskContext, rendered, sync_dag
from support.triggers import DIGEST, LOGIN, list_tags, refusal

PLACE = {"upstream_name": "team/app"}


# -- secrets -----------------------------------------------------------------------------------------------------------


def credentials_in(listener: HostileRegistry) -> list[str]:
    """What the listener was sent of credentials, in whatever request."""
    return [header for request in listener.asked() if (header := request.header("authorization"))]


@pytest.mark.parametrize(
    ("conn_id", "fields"),
    [
        ("aws_prod", {"conn_type": "aws"}),
        ("plain", {"conn_type": "generic", "extra": {"allow_any_host": True}}),
        ("unsaid", {}),
        ("any_host", {"extra": {"allow_any_host": True}}),
        ("bound", {"host": "registry.example"}),
        ("registry_sync_remote_0123", {"extra": {"allow_any_host": True}}),
    ],
)
def test_a_trigger_has_no_connection_sent_to_a_host_of_its_own(
    database: Database, listener: HostileRegistry, connect: Callable[..., str], conn_id: str, fields: dict[str, Any]
) -> None:
    conf = {"repository": "mine", "url": listener.base, **PLACE, "conn_id": connect(conn_id, **fields)}
    for more in ({}, {"ssl_validation": "false"}, {"remote": "another"}):
        said = refusal(**conf, **more)
        assert "connection" in said or "ssl_validation would be turned off" in said
    assert listener.asked() == []
    assert database.remotes.page().total_count == database.repositories.page().total_count == 0


def test_a_trigger_may_name_a_connection_for_the_host_that_is_in_it(
    database: Database, listener: HostileRegistry, connect: Callable[..., str]
) -> None:
    connect("bound", host=listener.base)
    listener.on("HEAD", "/v2/team/app/manifests/a", reply(200, headers=[("Docker-Content-Digest", DIGEST)]))
    list_tags(repository="mine", url=listener.base, **PLACE, conn_id="bound")
    assert len(credentials_in(listener)) > 0
    assert database.remotes.by_name("mine").spec.conn_id == "bound"


@pytest.mark.parametrize("alias", ["x/../{}", "./{}", "{}#x", "{}?x", "registry%5F{}"])
def test_a_trigger_reaches_no_connection_by_another_name_of_it(
    database: Database, listener: HostileRegistry, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    """Airflow's own client asks for a connection in the path of a URL; what is asked is written anew on the way."""
    own = f"registry_sync_remote_{'0' * 32}_00000000"
    host, port = listener.base.removeprefix("http://").split(":")
    extra = json.dumps({"allow_insecure_credentials": True})

    def serve(request: httpx.Request) -> httpx.Response:
        conn_id = request.url.path.removeprefix("/connections/")
        assert conn_id == own
        place = {"schema": "http", "host": host, "port": int(port), "extra": extra}
        return httpx.Response(200, json={"conn_id": conn_id, "conn_type": "registry", **LOGIN, **place})

    client = Client(base_url="http://airflow.example", token="", transport=httpx.MockTransport(serve))

    def get_connection(conn_id: str) -> Connection:
        told = client.connections.get(conn_id)
        assert isinstance(told, ConnectionResponse)
        return Connection(**told.model_dump(exclude={"type", "schema_"}), schema=told.schema_)

    monkeypatch.setattr(BaseHook, "get_connection", get_connection)
    conn_id = alias.format(own.removeprefix("registry_") if "%" in alias else own)
    for conf in ({}, {"remote": "another"}):
        said = refusal(repository="mine", url=listener.base, **PLACE, conn_id=conn_id, **conf)
        assert "is not the id of an Airflow connection" in said or "belongs to the remote it was made for" in said
    assert listener.asked() == []
    assert database.remotes.page().total_count == 0
    with pytest.raises(ConfigurationError, match="is not the id of an Airflow connection"):
        open_client(RemoteSpec.parse("theirs", listener.base, "team/app", conn_id=conn_id))


def test_a_stored_remote_with_a_connection_is_not_pointed_elsewhere(
    database: Database, listener: HostileRegistry, connect: Callable[..., str]
) -> None:
    """Neither by its own name, nor by a connection of another kind that its owner chose."""
    connect("any_host", extra={"allow_any_host": True})
    stored = RemoteSpec.parse("theirs", "https://registry.example", "team/app", conn_id="any_host")
    database.remotes.create(stored)
    for repository in ("theirs", "mine"):
        said = refusal(repository=repository, remote="theirs", url=listener.base, **PLACE)
        assert "url of remote 'theirs' would change" in said
    assert listener.asked() == []
    assert database.remotes.by_name("theirs").spec == stored


ODD: list[tuple[dict[str, Any], str]] = [
    ({"repository": ["theirs"]}, "give one text, not list"),
    ({"repository": {"name": "theirs"}}, "give one text, not dict"),
    ({"remote": ["theirs"]}, "give one text, not list"),
    ({"url": {"host": "x"}}, "give one text, not dict"),
    ({"tags": [["a"], "b"]}, "give one text, not list"),
    ({"tags": {"a": 1}}, "text with commas or a list"),
    ({"mode": ["mirror"]}, "give one text, not list"),
    ({"mode": "MIRROR"}, "mode is 'MIRROR'"),
    ({"ssl_validation": 0}, "ssl_validation is '0'"),
    ({"ssl_validation": [False]}, "give one text, not list"),
    ({"ssl_validation": " FALSE "}, "ssl_validation would be turned off"),
    ({"replace_upstream": "yes"}, "replace_upstream is 'yes'"),
    ({"replace_upstream": " True"}, "replace_upstream is not allowed for a trigger"),
    ({"url": "https://anna:secret@registry.example"}, "credentials belong in an Airflow connection"),
    ({"url": "https://registry.example."}, "no usable host"),
    ({"url": "https://registry.example\\@127.0.0.1"}, "not the URL of a registry|credentials belong"),
    ({"url": "https://registry.example/x"}, "give only scheme, host and port"),
    ({"repository": "the\u200birs"}, "printable characters"),
    ({"conn_id": " REGISTRY_SYNC_REMOTE_0123 "}, "belongs to the remote it was made for"),
]


@pytest.mark.parametrize(("said", "why"), ODD)
def test_values_of_other_kinds_are_refused_at_once(
    database: Database, listener: HostileRegistry, said: dict[str, Any], why: str
) -> None:
    """As native templates of a DAG of one's own hand them on."""
    database.remotes.create(RemoteSpec.parse("theirs", "https://registry.example", "team/app"))
    params = {name: Param(None) for name in ("repository", "url", "upstream_name", *said)}
    conf = {"repository": "mine", "url": listener.base, "upstream_name": "open/app", **said}
    with DAG("own", schedule=None, params=params, render_template_as_native_obj=True) as dag:
        task = ListTagsOperator(task_id="list_tags", **{name: f"{{{{ params.{name} }}}}" for name in conf})
    context = rendered(task, TaskContext(conf=conf, dag_id="own"), dag)
    for name, value in conf.items():  # a native template reads text as code, where it can
        setattr(task, name, value)
    with pytest.raises(AirflowFailException, match=why):
        task.execute(context)
    assert listener.asked() == []
    assert (database.remotes.page().total_count, database.repositories.page().total_count) == (1, 0)


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://Registry.Example",
        "https://registry.example:443/",
        " registry.example\n",
        "https://REGISTRY.example/v2/",
    ],
)
def test_another_way_to_write_a_place_is_that_place(database: Database, url: str) -> None:
    """It changes nothing of the remote, and a connection for that place serves it."""
    stored = RemoteSpec.parse("app", "https://registry.example", "team/app")
    database.remotes.create(stored)
    context = TaskContext(conf={"repository": "app", "url": url, "upstream_name": "team/app"}, dag_id="registry_sync")
    task = sync_dag().get_task("list_tags").prepare_for_execution()
    given = rendered(task, context)
    with open_stage(given) as stage:
        run, _ = task._open_run(stage, given)
    assert (run.authority, run.remote_changes) == (Authority.TRIGGER, None)
    assert database.remotes.by_name("app").spec == stored == run.remote


# -- who is trusted ----------------------------------------------------------------------------------------------------


def test_a_trigger_creates_and_syncs_what_is_new(database: Database, listener: HostileRegistry) -> None:
    context = list_tags(repository="mine", url=listener.base, upstream_name="open/app")
    run = database.runs.get(context.returned["sync_run"])
    assert (run.authority, run.remote.url.written) == (Authority.TRIGGER, listener.base)
    assert credentials_in(listener) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("regex", [".*"]),
        ("regex_all", [".*"]),
        ("exclude_regex", ["3.*"]),
        ("semver", ">=3"),
        ("semver", {"range": ">=3", "prereleases": True}),
        ("newest", 3),
        ("order", "name"),
        ("newer_than", "90d"),
        ("digests", [f"latest@{DIGEST}"]),
        ("tag_sets", [{"include": ["*"]}]),
    ],
)
def test_a_trigger_gives_a_stored_remote_no_rules_for_tags(
    database: Database, listener: HostileRegistry, option: str, value: Any
) -> None:
    """As the form sends them; what is empty in it is the remote's own."""
    needed = {"order": "first_seen"} if option == "newer_than" else {}
    stored = RemoteSpec.parse("mine", listener.base, "open/app", include_tags=("a",), **needed)
    database.remotes.create(stored)
    for place in ({"remote": "mine"}, {"url": listener.base, "upstream_name": "open/app"}):
        said = refusal(repository="mine", mode="additive", **place, **{option: value})
        assert f"{option} would differ" in said or f"{option} of remote 'mine' would change" in said
    assert listener.asked() == []
    listener.on("HEAD", "/v2/open/app/manifests/a", reply(200, headers=[("Docker-Content-Digest", DIGEST)]))
    context = list_tags(repository="mine", remote="mine", **{option: None})
    run = database.runs.get(context.returned["sync_run"])
    assert (run.authority, run.remote) == (Authority.TRIGGER, stored)


def change(listener: HostileRegistry) -> dict[str, Any]:
    """Parameters that would change the remote ``mine``."""
    return {"repository": "mine", "url": listener.base, "upstream_name": "open/app", "policy": "on_demand"}


def test_an_installation_may_trust_its_triggers_and_the_note_says_what_changed(
    database: Database, listener: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.remotes.create(RemoteSpec.parse("mine", listener.base, "open/app"))
    assert "policy of remote 'mine' would change" in refusal(**change(listener))
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__TRUST_TRIGGERS", "True")
    context = list_tags(**change(listener))
    assert context.returned[RUN_NOTE_KEY]["details"] == ["remote 'mine' changed: policy from immediate to on_demand"]
    (changed,) = list_tags(**change(listener), tags=["a"]).returned[RUN_NOTE_KEY]["details"]
    assert changed.endswith("tags from all to a")


def test_a_trigger_publishes_only_where_triggers_are_trusted(
    database: Database, listener: HostileRegistry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync = {"repository": "mine", "url": listener.base, "upstream_name": "open/app", "publish_as": " team/mine "}
    assert "publish_as would change that" in refusal(**sync)
    assert listener.asked() == []
    assert database.distributions.page().total_count == database.repositories.page().total_count == 0
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__TRUST_TRIGGERS", "True")
    list_tags(**sync)
    made = database.distributions.by_name("team/mine")
    assert (made.base_path, made.is_private) == ("team/mine", True)
    assert made.repository_id == database.repositories.by_name("mine").id
    assert "published as team/mine (private): clients pull the latest version" in capsys.readouterr().out
    monkeypatch.delenv("AIRFLOW__REGISTRY_SYNC__TRUST_TRIGGERS")
    list_tags(**sync, download_concurrency=None)
    assert database.distributions.page().items == (made,)


@pytest.mark.parametrize(
    ("written", "conf", "run_id", "authority"),
    [
        ({}, {"anything": 1}, "manual__1", "author"),
        ({"tags": ["1.*", "2"]}, {"anything": 1}, "manual__1", "author"),
        ({"policy": "{{ params.policy }}"}, None, "scheduled__1", "author"),
        ({"policy": "{{ params.policy }}"}, {}, "manual__1", "author"),
        ({"policy": "{{ params.policy }}"}, {"policy": "streamed"}, "manual__1", "trigger"),
        ({"policy": "{{ params.policy }}"}, {"anything": 1}, "manual__1", "trigger"),
        ({"policy": "{{ params.policy }}", "trust_triggers": True}, {"policy": "streamed"}, "manual__1", "author"),
        ({"tags": ["1.*", "{{ params.policy }}"]}, {"policy": "streamed"}, "manual__1", "trigger"),
        ({"tags": "{% if params.policy %}a{% endif %}"}, {"policy": "streamed"}, "manual__1", "trigger"),
        ({"tags": "{{ run_id }}"}, None, "a", "trigger"),
        ({"tags": "{{ dag_run.run_id }}"}, {}, "a", "trigger"),
        ({"tags": lambda context, jinja_env: "a"}, {"anything": 1}, "manual__1", "trigger"),
    ],
)
def test_what_stands_in_the_dags_code_is_its_authors_word(
    database: Database, written: dict[str, Any], conf: Any, run_id: str, authority: str
) -> None:
    with DAG("own", schedule=None, params={"policy": Param("immediate", type="string")}) as dag:
        task = ListTagsOperator(
            task_id="list_tags", repository="r", url="https://registry.example", upstream_name="a", **written
        )
    context = rendered(task, TaskContext(conf=conf, run_id=run_id), dag)
    assert task.authority(context, load_settings()).value == authority


@pytest.mark.parametrize(
    ("template", "of_manual", "of_scheduled"),
    [
        ("nightly-{{ ds_nodash }}", "trigger", "author"),
        ("{{ logical_date | ds }}", "trigger", "author"),
        ("{{ data_interval_start }}", "trigger", "author"),
        ("{{ task_instance_key_str }}", "trigger", "trigger"),
        ("{{ inlet_events }}", "trigger", "trigger"),
        ("{{ params.adds }}", "author", "author"),
    ],
)
def test_a_date_is_the_schedulers_or_of_whoever_triggers(
    database: Database, template: str, of_manual: str, of_scheduled: str
) -> None:
    for run_type, authority in (("manual", of_manual), ("scheduled", of_scheduled), ("backfill", of_manual)):
        with DAG("own", schedule=None, params={"adds": Param("a", type="string")}):
            task = ListTagsOperator(task_id="list_tags", repository="r", remote="a")
        task._written = {"tags": template}
        context = TaskContext(run_type=run_type).given()
        assert task.authority(context, load_settings()).value == authority


@pytest.mark.parametrize(
    ("template", "of_manual", "of_scheduled"),
    [
        ("{{ params.adds }}", "author", "author"),
        ("{{ params['adds'] | upper }}-{{ dag.dag_id }}", "author", "author"),
        ("{% set x = params.adds %}{% for y in [x] %}{{ y }}{% endfor %}", "author", "author"),
        ("{{ ds }}", "trigger", "author"),
        ("{{ ti | attr('run_' ~ 'id') }}", "trigger", "trigger"),
        ("{{ ti['run_' 'id'] }}", "trigger", "trigger"),
        ("{{ ti.xcom_pull(task_ids=['a', 'b'], key='c')[0].d }}", "author", "author"),
        ("{{ ti.xcom_pull('a', 'another_dag') }}", "trigger", "trigger"),
        ("{{ ti.xcom_pull('a', run_id='x') }}", "trigger", "trigger"),
        ("{{ ti.xcom_pull('a', include_prior_dates=True) }}", "trigger", "trigger"),
        ("{{ ti.xcom_pull(ds) }}", "trigger", "trigger"),
        ("{{ ti.xcom_pull('a') }}{{ ti.run_id }}", "trigger", "trigger"),
        ("{{ var.value.a }}", "trigger", "trigger"),
        ("{{ self._TemplateReference__context.run_id }}", "trigger", "trigger"),
        ("{{ dag | attr('params') }}", "trigger", "trigger"),
        ("{% include 'a' %}", "trigger", "trigger"),
        ("{{ params.adds", "trigger", "trigger"),
        ("{{ (params.adds or ti.xcom_pull)('a') }}", "trigger", "trigger"),
        ({"{{ params.adds }}": "{{ dag.dag_id }}"}, "author", "author"),
        ({"{{ params.adds }}": "{{ run_id }}"}, "trigger", "trigger"),
        (lambda context, jinja_env: context["run_id"], "trigger", "trigger"),
    ],
)
def test_a_template_is_its_authors_word_when_it_names_nothing_that_a_trigger_may_choose(
    database: Database, template: Any, of_manual: str, of_scheduled: str
) -> None:
    with DAG("own", schedule=None, params={"adds": Param("a", type="string")}):
        task = ListTagsOperator(task_id="list_tags", repository="r", remote="a")
    task._written = {"tags": [template], "repository": "r"}
    by_type = {"manual": of_manual, "scheduled": of_scheduled, "backfill": of_manual, "asset_triggered": of_manual}
    for run_type, authority in by_type.items():
        assert task.authority(TaskContext(run_type=run_type).given(), load_settings()).value == authority, run_type


def test_the_output_of_another_task_is_its_authors_word(database: Database) -> None:
    with DAG("own", schedule=None):
        chosen = ListTagsOperator(task_id="other", repository="r", remote="a").output
        task = ListTagsOperator(task_id="list_tags", repository="r", remote="a", tags=chosen)
    task._written = {"tags": chosen, "repository": "r"}
    for conf, authority in ((None, "author"), ({"a": 1}, "trigger")):
        assert task.authority(TaskContext(conf=conf).given(), load_settings()).value == authority


def test_values_that_a_mapped_task_gets_are_not_mistaken_for_its_authors(database: Database) -> None:
    with DAG("own", schedule=None) as dag:
        task = ListTagsOperator(task_id="list_tags", repository="r", url="https://registry.example", upstream_name="a")
    context = rendered(task, TaskContext(conf={"a": 1}, map_index=0), dag)
    assert task.authority(context, load_settings()) is Authority.TRIGGER


@pytest.mark.parametrize(
    ("partial", "defaults", "authority"),
    [
        ({}, {}, "trigger"),
        ({"trust_triggers": False}, {}, "trigger"),
        ({"trust_triggers": True}, {}, "author"),
        ({}, {"trust_triggers": True}, "author"),
        ({"trust_triggers": False}, {"trust_triggers": True}, "trigger"),
    ],
)
def test_what_a_task_is_mapped_over_is_no_word_of_trust(
    database: Database, partial: dict[str, Any], defaults: dict[str, Any], authority: str
) -> None:
    """An author who maps over what a trigger says does not let it say whether it is trusted."""
    said = {"repository": "r", "remote": "theirs", "ssl_validation": False}
    given = said if "trust_triggers" in partial else {**said, "trust_triggers": True}
    with DAG("own", schedule=None, default_args=defaults):
        mapped = ListTagsOperator.partial(task_id="list_tags", **partial).expand_kwargs([given])
    task = mapped.unmap(given)
    task._written = said
    context = TaskContext(conf={"mirrors": [given]}, map_index=0).given()
    assert task.authority(context, load_settings()).value == authority


def test_templates_that_are_written_otherwise_are_not_mistaken_for_plain_text(database: Database) -> None:
    marks = {"variable_start_string": "[[", "variable_end_string": "]]"}
    with DAG("own", schedule=None, params={"t": Param("a")}, jinja_environment_kwargs=marks) as dag:
        task = ListTagsOperator(task_id="list_tags", repository="r", remote="a", tags="[[ params.t ]]")
    context = rendered(task, TaskContext(conf={"t": "b"}), dag)
    assert (task.tags, task.authority(context, load_settings())) == ("b", Authority.TRIGGER)


def test_a_word_of_trust_is_not_a_template() -> None:
    with pytest.raises(TypeError, match="trust_triggers is True or False"):
        ListTagsOperator(task_id="list_tags", repository="r", trust_triggers="{{ params.trust }}")  # type: ignore[arg-type]
    defaults = {"trust_triggers": True}
    with DAG("own", schedule=None, default_args=defaults):
        assert ListTagsOperator(task_id="a", repository="r").trust_triggers
        assert CommitVersionOperator(task_id="b").trust_triggers


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "ftp://quay.io"}, "Registry (url): "),
        ({"upstream_name": "A B"}, "Upstream name (upstream_name): 'A B' is not a repository name"),
        ({"tags": ["a b"]}, "Tags (tags): 'a b' is neither a tag nor a glob of tags"),
        ({"platforms": ["linux"]}, "Platforms (platforms): platform 'linux': write it as os/architecture"),
        ({"publish_as": "Team"}, "Publish as (publish_as): "),
        ({"repository": " "}, "repository"),
    ],
)
@pytest.mark.usefixtures("database")
def test_a_value_that_cannot_be_right_is_refused_with_the_title_that_the_form_gives_it(
    given: dict[str, Any], said: str
) -> None:
    conf = {"repository": "app", "url": "https://quay.io", "upstream_name": "team/app", **given}
    assert said in refusal(**conf)
