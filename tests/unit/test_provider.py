"""Airflow finds the connection type, its form, the settings and the commands."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib import import_module, resources
from pathlib import Path

import pytest

import registry_sync
from registry_sync import provider
from registry_sync.hooks.connection import KNOWN_EXTRA, SECRET_EXTRA
from registry_sync.hooks.credential_helpers import MINTS

INFO = provider.get_provider_info()
PACKAGE = Path(registry_sync.__file__).parent


def test_the_information_fits_airflows_schema() -> None:
    import jsonschema

    schema = json.loads(resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_importing_it_imports_nothing_else_of_ours_or_airflows() -> None:
    code = (
        "import sys; import registry_sync.provider as p; p.get_provider_info(); "
        "print([m for m in sys.modules if m.startswith(('airflow', 'requests', 'sqlalchemy', 'registry_sync.'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert ast.literal_eval(done.stdout) == ["registry_sync.provider"]


def test_everything_it_names_exists() -> None:
    for connection_type in INFO["connection-types"]:
        module, _, name = connection_type["hook-class-name"].rpartition(".")
        hook = getattr(import_module(module), name)
        assert hook.conn_type == connection_type["connection-type"]
        assert hook.hook_name == connection_type["hook-name"]
    for function in INFO["cli"]:
        module, _, name = function.rpartition(".")
        assert callable(getattr(import_module(module), name))
    for kind in ("operators", "hooks", "triggers"):
        for entry in INFO[kind]:
            for module in entry["python-modules"]:
                import_module(module)


def test_every_operator_module_is_named() -> None:
    with_operators = {
        f"registry_sync.operators.{path.stem}"
        for path in (PACKAGE / "operators").glob("*.py")
        if re.search(r"^class \w+Operator\(", path.read_text(), re.MULTILINE)
    }
    assert with_operators <= set(provider.OPERATOR_MODULES)


def test_every_field_of_the_form_is_read() -> None:
    assert set(provider.CONNECTION_FIELDS) <= KNOWN_EXTRA


def test_the_form_offers_every_credential_helper() -> None:
    offered = provider.CONNECTION_FIELDS["credential_helper"]["schema"]["enum"]
    assert offered == [None, *sorted(MINTS)]


def test_fields_that_hold_secrets_are_password_fields_and_pem_text_has_lines() -> None:
    """A password field has one line; Airflow hides a saved key by the name of its field."""
    formats = {name: field["schema"].get("format") for name, field in provider.CONNECTION_FIELDS.items()}
    lines = {name for name, kind in formats.items() if kind == "multiline"}
    assert {name for name, kind in formats.items() if kind == "password"} | {"client_private_key"} == SECRET_EXTRA - {
        "proxies"
    }
    assert lines == {name for name, field in provider.CONNECTION_FIELDS.items() if "PEM text" in field["description"]}


def test_the_form_has_its_fields_in_groups() -> None:
    """In order, and each group in one piece: the form shows a section where its first field stands."""
    sections = [field["schema"]["section"] for field in provider.CONNECTION_FIELDS.values()]
    groups = list(dict.fromkeys(sections))
    assert groups == ["TLS", "Credentials and tokens", "Network", "Limits"]
    assert sections == sorted(sections, key=groups.index)


def test_every_field_and_setting_says_what_it_is() -> None:
    for field in provider.CONNECTION_FIELDS.values():
        assert field["label"]
        assert field["description"].endswith(".")
    for setting in provider.SETTINGS.values():
        assert setting["description"]


@pytest.fixture(scope="module")
def seen_by_airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What an Airflow process of its own makes of the installed provider."""
    code = """
import json, warnings
warnings.simplefilter("ignore")
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
hook = manager.hooks["registry"]
print("SEEN" + json.dumps({
    "provider": manager.providers["registry-sync"].version,
    "name": hook.hook_name,
    "testable": hook.connection_testable,
    "class": hook.hook_class_name,
    "fields": sorted(name for name in manager.connection_form_widgets if name.startswith("extra__registry__")),
    "sensitive": sorted(name for name, widget in manager.connection_form_widgets.items()
                        if name.startswith("extra__registry__") and widget.is_sensitive),
    "behaviour": manager.field_behaviours["registry"],
}))
"""
    home = tmp_path_factory.mktemp("airflow")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"AIRFLOW_HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(PACKAGE.parent)},
    )
    seen: dict[str, object] = json.loads(done.stdout.rpartition("SEEN")[2])
    return seen


@pytest.mark.slow
def test_airflow_offers_the_connection_type(seen_by_airflow: dict[str, object]) -> None:
    assert seen_by_airflow["provider"] == registry_sync.__version__
    assert seen_by_airflow["name"] == "Container registry"
    assert seen_by_airflow["class"] == provider.HOOK
    assert seen_by_airflow["testable"] is True


@pytest.mark.slow
def test_airflow_shows_every_field_of_the_form(seen_by_airflow: dict[str, object]) -> None:
    assert seen_by_airflow["fields"] == sorted(f"extra__registry__{name}" for name in provider.CONNECTION_FIELDS)
    assert seen_by_airflow["sensitive"] == [
        f"extra__registry__{name}" for name in ("identity_token", "proxy", "registry_token")
    ]


@pytest.mark.slow
def test_airflow_takes_the_labels_and_hints(seen_by_airflow: dict[str, object]) -> None:
    behaviour = seen_by_airflow["behaviour"]
    assert isinstance(behaviour, dict)
    assert behaviour["relabeling"] == provider.FIELD_BEHAVIOUR["relabeling"]
    assert behaviour["placeholders"]["host"].startswith("registry-1.docker.io")
