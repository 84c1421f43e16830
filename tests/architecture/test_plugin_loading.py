"""How Airflow loads the plugin, tried in interpreters of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

LOAD = """
import json, sys
from airflow.plugins_manager import _get_plugins
plugins, errors = _get_plugins()
names = [plugin.name for plugin in plugins if plugin.name == "registry_sync"]
import copy, http, operator  # names that a careless plugins folder would take over
print("RESULT" + json.dumps({
    "names": names,
    "errors": errors,
    "modules": sorted(sys.modules),
    "origins": [sys.modules[name].__file__ for name in ("copy", "operator")],
}))
"""

#: As if the distribution were not installed, for both modules by which entry points are found.
HIDE_THE_DISTRIBUTION = """
import importlib.metadata, importlib_metadata
def hide(module):
    every, entries = module.distributions, module.entry_points
    module.distributions = lambda **kwargs: (d for d in every(**kwargs) if d.metadata["Name"] != "registry-sync")
    module.entry_points = lambda **kwargs: module.EntryPoints(
        e for e in entries(**kwargs) if "registry_sync" not in e.value
    )
hide(importlib.metadata)
hide(importlib_metadata)
"""

IMPORTS = """
import json, sys
before = set(sys.modules)
import registry_sync.plugin, registry_sync.provider
registry_sync.provider.get_provider_info()
print("RESULT" + json.dumps(sorted(set(sys.modules) - before)))
"""


def _run(code: str, home: Path, **env: str) -> object:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHONPATH"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        **env,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.split("RESULT")[-1])


@pytest.mark.parametrize(
    ("folder", "installed"),
    [(True, True), (False, True), (True, False)],
    ids=["folder-and-installed", "installed-only", "folder-only"],
)
def test_the_plugin_is_registered_exactly_once_without_errors(tmp_path: Path, folder: bool, installed: bool) -> None:
    """Whichever way the plugin reaches Airflow, and also when it does so both ways."""
    plugins = ROOT / "plugins" if folder else tmp_path / "none"
    code = LOAD
    if not installed:
        code = HIDE_THE_DISTRIBUTION + code
    result = _run(code, tmp_path, AIRFLOW__CORE__PLUGINS_FOLDER=str(plugins))
    assert isinstance(result, dict)
    assert result["names"] == ["registry_sync"]
    assert result["errors"] == {}
    assert not any("registry_sync" in origin for origin in result["origins"])


def test_importing_the_plugin_and_the_provider_imports_neither_fastapi_nor_sqlalchemy_nor_requests(
    tmp_path: Path,
) -> None:
    """Loading the plugin is paid by every task of a deployment."""
    code = "import airflow, airflow.plugins_manager\n" + IMPORTS
    new = _run(code, tmp_path)
    assert isinstance(new, list)
    heavy = {name.split(".")[0] for name in new} & {
        "fastapi",
        "sqlalchemy",
        "requests",
        "alembic",
        "fsspec",
        "starlette",
    }
    assert heavy == set()


def test_importing_the_dag_imports_neither_sqlalchemy_nor_requests_beyond_what_airflow_does(tmp_path: Path) -> None:
    """A DAG file is parsed again in every task."""
    code = (
        "import json, sys\nimport airflow.sdk\n"
        "from airflow.sdk import DAG, Param, BaseOperator, AssetAlias, RetryPolicy\n"
        "before = set(sys.modules)\nimport runpy\n"
        f"runpy.run_path({str(ROOT / 'dags' / 'registry_sync.py')!r})\n"
        "new = set(sys.modules) - before\n"
        "print('RESULT' + json.dumps(sorted(name for name in new if name.startswith('registry_sync'))"
        " + ['|'] + sorted({name.split('.')[0] for name in new} & {'sqlalchemy', 'requests', 'fastapi', 'fsspec'})))"
    )
    result = _run(code, tmp_path)
    assert isinstance(result, list)
    assert result[result.index("|") + 1 :] == []
    assert not {
        name for name in result if name.startswith(("registry_sync.db", "registry_sync.oci", "registry_sync.api"))
    }
