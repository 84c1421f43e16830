"""The wheel, installed as the image has it: found by Airflow as a provider, and its plugin registered once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from support.make import Clone

LOAD = """
import json, registry_sync
from airflow.plugins_manager import _get_plugins
from airflow.providers_manager import ProvidersManager
plugins, errors = _get_plugins()
manager = ProvidersManager()
print("RESULT" + json.dumps({
    "file": registry_sync.__file__,
    "plugins": [plugin.name for plugin in plugins if plugin.name == "registry_sync"],
    "errors": errors,
    "providers": [name for name in manager.providers if name == "registry-sync"],
    "hook": manager.hooks["registry"].hook_class_name,
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the Dockerfile builds, by the same command."""
    folder = tmp_path_factory.mktemp("wheel")
    Clone(folder / "source")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."],
        cwd=folder / "source",
        check=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and every other package as this one has it."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    target = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("registry_sync", "_registry_sync", "__pycache__")):
            (target / entry.name).symlink_to(entry)
    install = ["install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    return python


def _run(python: Path, home: Path, *arguments: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    env |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run([str(python), *arguments], env=env, cwd=home, check=True, capture_output=True, text=True)
    return done.stdout


def test_the_wheel_has_the_package_and_nothing_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"registry_sync"}
    assert "registry_sync/py.typed" in names
    assert {f"registry_sync/api/pages/{name}" for name in ("templates/layout.html", "static/pages.js")} <= set(names)


def test_airflow_finds_the_provider_and_registers_the_plugin_once(installed: Path, tmp_path: Path) -> None:
    found = json.loads(_run(installed, tmp_path, "-c", LOAD).partition("RESULT")[2])
    assert Path(found["file"]).is_relative_to(installed.parents[1])
    assert found["plugins"] == ["registry_sync"]
    assert found["errors"] == {}
    assert found["providers"] == ["registry-sync"]
    assert found["hook"] == "registry_sync.hooks.registry.RegistryHook"


def test_its_commands_are_among_airflows(installed: Path, tmp_path: Path) -> None:
    assert "upgrade" in _run(installed, tmp_path, "-m", "airflow", "registry-sync", "db", "--help")
