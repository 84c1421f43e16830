"""Coverage counts what the tests run in any process of pytest, and too little of it makes them fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[2]
PLUGINS = ("-p", "xdist", "-p", "no:cacheprovider")
MODULE = """
def size(number):
    if number > 10:
        return "large"
    return "small"
"""
CONFTEST = """
import sys
from pathlib import Path
from support.branch_coverage import BranchCoverage

package = Path(__file__).with_name("package")
sys.path.insert(0, str(package.parent))
coverage = BranchCoverage(package, 90, package.with_name("coverage.json"), kept=package.with_name("kept"))
coverage.start()

def pytest_configure(config):
    config.pluginmanager.register(coverage)
"""


def run(folder: Path, processes: int, *numbers: int) -> subprocess.CompletedProcess[str]:
    """Tests of the package with these numbers, each in a file of its own."""
    (folder / "package").mkdir(exist_ok=True)
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "sizes.py").write_text(MODULE)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for number in numbers:
        (folder / f"test_{number}.py").write_text(
            f"from package.sizes import size\n\ndef test_size():\n    assert size({number})\n"
        )
    return subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGINS, f"-n{processes}", "--dist", "loadfile", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("processes", [0, 2])
def test_what_several_files_run_counts_together(tmp_path: Path, processes: int) -> None:
    done = run(tmp_path, processes, 5, 50)
    assert done.returncode == 0, done.stdout
    assert "lines 100.0 %, branches 100.0 %, together 100.00 %; required: 90 %" in done.stdout


@pytest.mark.parametrize("processes", [0, 1])
def test_tests_that_pass_and_leave_out_too_much_fail(tmp_path: Path, processes: int) -> None:
    done = run(tmp_path, processes, 5)
    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    assert "2 lines and branches not run in package/sizes.py: 4\n" in done.stdout
    assert "lines 75.0 %, branches 50.0 %, together 66.67 %; required: 90 %" in done.stdout
    assert "FAILED: the tests leave out" in done.stdout
    assert json.loads((tmp_path / "coverage.json").read_text())["files"]["package/sizes.py"]["missing_lines"] == [4]


@pytest.mark.parametrize("processes", [0, 2])
def test_a_module_that_no_process_imports_counts_as_not_run(tmp_path: Path, processes: int) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "unused.py").write_text("first = 1\nsecond = 2\n")
    done = run(tmp_path, processes, 5, 50)
    assert done.returncode == 1, done.stdout
    found = json.loads((tmp_path / "coverage.json").read_text())["files"]
    assert found["package/unused.py"]["missing_lines"] == [1, 2]
    assert found["package/sizes.py"]["missing_lines"] == []
