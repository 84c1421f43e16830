"""What the guide on limits says of pools, as Airflow understands it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.documents import code_blocks

ROOT = Path(__file__).parents[2]
SHOW = """
from airflow.dag_processing.dagbag import DagBag
print({task.pool for task in DagBag().dags["registry_sync"].tasks})
"""


@pytest.mark.rule("A9.8")
def test_the_policy_puts_every_task_of_the_delivered_dag_into_the_pool(tmp_path: Path) -> None:
    policy = next(block.text for block in code_blocks("how-to/limit-requests.md") if "def task_policy" in block.text)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "airflow_local_settings.py").write_text(policy)
    environment = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT / "plugins"),
    }
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["{'registries'}"], done.stderr
