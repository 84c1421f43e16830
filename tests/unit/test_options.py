"""Where an option of a remote is written out, it is as it is defined; what a surface lacks is named with its file."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from jsonschema import Draft7Validator
from jsonschema.validators import validator_for
from pydantic import ValidationError

from local_airflow.sync_command import LISTS, PASSED_ON, VARIABLES
from registry_sync.api.remote_routes import GivenRemote
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.records import SyncMode
from registry_sync.domain.remote import OPTIONS, SYNC_OPTIONS, Policy, RemoteSpec
from registry_sync.domain.tag_rules import TagOrder
from registry_sync.operators.list_tags import ListTagsOperator
from registry_sync.operators.parameters import check_shapes
from registry_sync.operators.sync_repository import sync_repository
from registry_sync.pulp.repository_documents import REST_NAMES, RemoteDocument

ROOT = Path(__file__).parents[2]
#: What a sync says besides options.
OF_THE_SYNC = {"repository", "remote", "url", "upstream_name", "mode", "replace_upstream", "publish_as"}
PARAMETERS = {option.parameter or name: (name, option) for name, option in SYNC_OPTIONS.items()}
DEFAULTS = {said.name: said.default for said in fields(RemoteSpec)}


@cache
def dag_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dags_registry_sync", ROOT / "dags" / "registry_sync.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schema(parameter: str) -> dict[str, Any]:
    form = dag_file().PARAMS
    assert parameter in form, f"the form has no {parameter}: add it to PARAMS in dags/registry_sync.py"
    found: dict[str, Any] = form[parameter].schema
    return found


# -- the operator -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_the_operator_has_a_parameter_that_is_left_to_the_remote_and_may_be_a_template(parameter: str) -> None:
    file = "operators/list_tags.py"
    signature = inspect.signature(ListTagsOperator).parameters
    assert parameter in signature, f"ListTagsOperator has no parameter {parameter}: add it in {file}"
    assert signature[parameter].default is None
    assert parameter in ListTagsOperator.template_fields, f"{parameter} is no template field: add it in {file}"
    assert f":param {parameter}: " in (ListTagsOperator.__doc__ or ""), f"{parameter} is not described in {file}"
    assert getattr(ListTagsOperator(task_id="t", repository="a", **{parameter: "said"}), parameter) == "said"


def test_the_operator_says_nothing_of_a_remote_that_is_no_option() -> None:
    named = set(inspect.signature(ListTagsOperator).parameters) - {"kwargs", "trust_triggers"}
    assert named == OF_THE_SYNC | PARAMETERS.keys() | {"preview", "fetch_tasks"}


# -- a sync in one call -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameter", sorted(OF_THE_SYNC | PARAMETERS.keys() | {"approve_removals", "preview", "trust_triggers"})
)
def test_a_sync_in_one_call_has_each_parameter_of_the_operators(parameter: str) -> None:
    file = "operators/sync_repository.py"
    signature = inspect.signature(sync_repository).parameters
    assert parameter in signature, f"sync_repository has no parameter {parameter}: add it in {file}"
    assert signature[parameter].default is (inspect.Parameter.empty if parameter == "repository" else None)
    assert f":param {parameter}: " in (sync_repository.__doc__ or ""), f"{parameter} is not described in {file}"


def test_a_sync_in_one_call_says_nothing_of_a_remote_that_is_no_option() -> None:
    of_the_group = {"small", "group_id", "dag", "default_args", "task_arguments"}
    named = set(inspect.signature(sync_repository).parameters) - of_the_group
    of_removals = {"approve_removals", "approval_timeout", "preview", "trust_triggers"}
    assert named == OF_THE_SYNC | PARAMETERS.keys() | of_removals


# -- the form of the DAG ------------------------------------------------------------------------------------------


def test_the_form_has_nothing_of_a_remote_that_is_no_option() -> None:
    assert set(dag_file().PARAMS) == OF_THE_SYNC | PARAMETERS.keys() | {"approve_removals", "dry_run"}


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_the_form_passes_it_on_and_leaves_it_to_the_remote(parameter: str) -> None:
    assert dag_file().PARAMS[parameter].value in (None, "default")
    (operator,) = (task for task in dag_file().list_tags.dag.tasks if task.task_id == "list_tags")
    template = str(getattr(operator, parameter))
    assert f"params.{parameter}" in template, f"list_tags is not given {parameter} in dags/registry_sync.py"
    description = dag_file().PARAMS[parameter].description or schema(parameter).get("description_md")
    assert schema(parameter).get("title")
    assert description


@pytest.mark.parametrize("parameter", [name for name, (_, option) in PARAMETERS.items() if option.maximum is not None])
def test_the_form_has_the_bounds_of_a_number(parameter: str) -> None:
    option, found = PARAMETERS[parameter][1], schema(parameter)
    assert found["type"] == ["null", "integer"]
    assert (found["minimum"], found["maximum"]) == (option.minimum, option.maximum)


def test_the_form_has_the_choices_of_the_code() -> None:
    assert schema("mode")["enum"] == [mode.value for mode in SyncMode]
    assert schema("policy")["enum"] == ["default", *(policy.value for policy in Policy)]
    flags = [said for said, (name, _) in PARAMETERS.items() if isinstance(DEFAULTS[name], bool)]
    assert flags == ["ssl_validation", "include_referrers"]
    assert [schema(flag)["enum"] for flag in flags] == [["default", "true", "false"]] * len(flags)
    assert schema("digest_list")["enum"] == ["default", *(source.value for source in DigestList)]
    assert schema("order")["enum"] == ["default", *(order.value for order in TagOrder)]
    for parameter in ("mode", "policy", "digest_list", "order", *flags):
        assert list(schema(parameter)["values_display"]) == schema(parameter)["enum"]


def test_the_form_refuses_no_text() -> None:
    """Airflow's form does not show why the API refused one; the first task says it, and names the field."""
    for name, param in dag_file().PARAMS.items():
        assert "pattern" not in json.dumps(param.schema), f"{name} is refused without a reason that the form shows"


def test_each_schema_of_the_form_is_of_a_draft_that_airflow_checks_fast() -> None:
    for param in dag_file().PARAMS.values():
        assert validator_for(param.schema, default=None) is Draft7Validator
        Draft7Validator.check_schema(param.schema)


def test_the_form_passes_the_base_path_on() -> None:
    (operator,) = (task for task in dag_file().list_tags.dag.tasks if task.task_id == "list_tags")
    assert operator.publish_as == "{{ params.publish_as or '' }}"
    assert "publish_as" in ListTagsOperator.template_fields


# -- REST ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIONS)
def test_rest_shows_and_takes_every_option(name: str) -> None:
    shown, given = "pulp/repository_documents.py", "api/remote_routes.py"
    field = REST_NAMES.get(name, name)
    assert field in RemoteDocument.model_fields, f"remotes are shown without {field}: add it in {shown}"
    assert field in GivenRemote.model_fields, f"remotes cannot be given {field}: add it in {given}"
    default = RemoteSpec.parse("a", "https://registry.example", "a").document()[name]
    said = GivenRemote.model_fields[field].get_default(call_default_factory=True)
    assert (said or None) == (default or None)
    assert isinstance(said, bool) is isinstance(default, bool)


def test_rest_shows_nothing_of_a_remote_that_is_no_option_but_credentials_and_what_every_resource_has() -> None:
    of_options = {REST_NAMES.get(name, name) for name in OPTIONS}
    assert set(RemoteDocument.model_fields) - of_options == {
        "pulp_created", "pulp_href", "pulp_last_updated", "name", "url", "upstream_name", "username", "password",
        "ssl_client_key",
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.maximum is not None])
def test_rest_has_the_bounds_of_a_number(name: str) -> None:
    option = OPTIONS[name]
    said = str(GivenRemote.model_json_schema()["properties"][REST_NAMES.get(name, name)])
    assert f"'minimum': {option.minimum}" in said
    assert f"'maximum': {option.maximum}" in said


@pytest.mark.parametrize(
    ("sent", "value"), [(None, None), (1, 1), ("50000000000", 50_000_000_000), (2**53 - 1, 2**53 - 1)]
)
def test_rest_takes_a_number_of_bytes_or_its_text(sent: Any, value: int | None) -> None:
    assert GivenRemote.model_validate({"max_total_bytes": sent}).spec_values(only_given=True) == {
        "max_total_bytes": value
    }


@pytest.mark.parametrize("sent", [0, -1, 1.5, "0", "50 GB", "1e9", True, 2**53, str(2**53), "9" * 17])
def test_rest_takes_no_other_number_of_bytes(sent: Any) -> None:
    with pytest.raises(ValidationError):
        GivenRemote.model_validate({"max_total_bytes": sent})


# -- make sync ----------------------------------------------------------------------------------------------------

#: Parameters that `make sync` has no variable for: they are said over REST, in the form, or in a DAG.
NOT_OF_MAKE_SYNC = {"remote", "download_concurrency", "ssl_validation", "include_referrers", "max_total_bytes",
                    "digest_list", "regex", "regex_all", "exclude_regex", "digests", "tag_sets", "approve_removals",
                    "dry_run"}  # fmt: skip


def test_make_sync_has_a_variable_for_each_parameter_of_the_form_or_is_said_to_have_none() -> None:
    assert VARIABLES.keys() | {"replace_upstream"} == set(dag_file().PARAMS) - NOT_OF_MAKE_SYNC
    assert {*PASSED_ON.values(), *LISTS.values()} == VARIABLES.keys() - {"repository", "url", "upstream_name"}
    assert {VARIABLES[parameter][0]: parameter for parameter in (*PASSED_ON.values(), *LISTS.values())} == (
        PASSED_ON | LISTS
    )


@pytest.mark.parametrize("parameter", [name for name in VARIABLES if name in ("policy", "mode", "order")])
def test_make_sync_names_the_choices_of_the_form(parameter: str) -> None:
    choices = [choice for choice in schema(parameter)["enum"] if choice != "default"]
    assert VARIABLES[parameter][1] == f"{', '.join(choices[:-1])} or {choices[-1]}"


@pytest.mark.parametrize("parameter", VARIABLES)
def test_what_make_sync_gives_as_an_example_can_be_typed(parameter: str) -> None:
    example = re.search(r"such as (\S+?),?(?: |$)", VARIABLES[parameter][1])
    if example is None or parameter in ("mode", "policy", "repository"):
        return
    check_shapes({parameter: example[1]}, str)
