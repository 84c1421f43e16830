"""``python -m release FOLDER``: builds the wheel and the source distribution, and checks whether they may be published.

It checks their contents, and an installation of the wheel in a fresh environment with the locked packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

from registry_sync import __version__
from registry_sync.provider import OPERATOR_MODULES

#: Reads the status and the documentation from Airflow's API server with the plugin in it, as a user who is signed in.
_READ_PAGES = """
from airflow.api_fastapi.app import create_app, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from starlette.testclient import TestClient

app = create_app()
token = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="admin", role="ADMIN"))
client = TestClient(app, headers={"Authorization": f"Bearer {token}"})
for path, part in (("api/v3/status/", "database_connection"), ("documentation/", "all documentation</a>")):
    response = client.get(f"/pulp/{path}")
    if response.status_code != 200 or part not in response.text:
        raise SystemExit(f"/pulp/{path}: {response.status_code} {response.text[:500]}")
"""
CHECKOUT = Path(__file__).parents[1]
PACKAGE = CHECKOUT / "plugins" / "registry_sync"
DOCUMENTATION = CHECKOUT / "docs"
LICENSE = "Apache-2.0"
#: The entry points of the wheel for Airflow, in `entry_points.txt`.
ENTRY_POINTS = ("[airflow.plugins]", "[apache_airflow_provider]")
#: The files that a source distribution requires besides the package, to build from it.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "dags/registry_sync.py")


def wheel_faults(wheel: Path) -> list[str]:
    """The faults of a wheel; empty when it may be published."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    own = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    pages = (path for path in DOCUMENTATION.rglob("*") if path.is_file())
    own |= {f"registry_sync/documentation/{path.relative_to(DOCUMENTATION).as_posix()}" for path in pages}
    own = {name for name in own if "__pycache__" not in name}
    faults = [f"{name} is missing" for name in sorted(own - names)]
    faults += [f"{name} does not belong there" for name in sorted(names - own) if not name.startswith(f"{info}/")]
    faults += [f"{part} is missing in entry_points.txt" for part in ENTRY_POINTS if part not in entry_points]
    if f"{info}/licenses/LICENSE" not in names or metadata["License-Expression"] != LICENSE:
        faults.append(f"the license {LICENSE} is not said or not there")
    if metadata["Version"] != __version__:
        faults.append(f"its version is {metadata['Version']}, and the package's {__version__}")
    return faults


def source_faults(archive: Path) -> list[str]:
    """The faults of a source distribution."""
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    required = [*SOURCES, "plugins/registry_sync/py.typed", "plugins/registry_sync/db/migrations/env.py"]
    faults = [f"{name} is missing" for name in required if name not in names]
    return faults + [f"{name} does not belong there" for name in sorted(names) if name.startswith((".local/", ".git/"))]


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel and the source distribution, built with the installed packages."""
    shutil.rmtree(folder, ignore_errors=True)
    for kind in ("--wheel", "--sdist"):
        _run(_uv(), "build", "--quiet", "--no-build-isolation", "--python", sys.executable, kind, "--out-dir", folder)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def try_out(wheel: Path, folder: Path) -> None:
    """Installs the wheel with the locked packages in a separate environment, and uses it there as Airflow does."""
    environment, home = folder / "venv", folder / "airflow"
    python = environment / "bin" / "python"
    _run(_uv(), "venv", "--quiet", "--python", sys.executable, environment)
    locked = CHECKOUT / "requirements" / "runtime.txt"
    _run(_uv(), "pip", "install", "--quiet", "--python", python, "--require-hashes", "--requirement", locked)
    _run(_uv(), "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))}
    variables |= {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    _run(python, "-c", f"import {', '.join(OPERATOR_MODULES)}", env=variables)
    airflow = environment / "bin" / "airflow"
    for command in ("db upgrade", "db check", "repository list"):
        _run(airflow, "registry-sync", *command.split(), env=variables)
    _run(airflow, "db", "migrate", env=variables)
    _run(python, "-W", "ignore", "-c", _READ_PAGES, env=variables)


def main(folder: Path) -> None:
    """Builds, checks and tries out; exits with the faults."""
    wheel, source = build(folder)
    faults = [f"{wheel.name}: {fault}" for fault in wheel_faults(wheel)]
    faults += [f"{source.name}: {fault}" for fault in source_faults(source)]
    if faults:
        sys.exit("\n".join(faults))
    fresh = folder / "tried"
    try_out(wheel, fresh)
    shutil.rmtree(fresh)
    print(f"{wheel}\n{source}")


def _uv() -> Path:
    return Path(sys.executable).with_name("uv")


def _run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [str(word) for word in command], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
