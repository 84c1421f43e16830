"""What a release publishes, looked at before it is: a wheel and a source distribution with all that belongs there."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import release
from registry_sync import __version__
from release import CHECKOUT, SOURCES, source_faults, wheel_faults


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return Path(next(iter(WheelBuilder(str(CHECKOUT)).build(directory=str(folder), versions=["standard"]))))


def test_the_wheel_has_the_package_its_entry_points_and_its_license(wheel: Path) -> None:
    assert wheel_faults(wheel) == []
    assert wheel.name == f"registry_sync-{__version__}-py3-none-any.whl"


def test_what_is_missing_or_too_much_or_wrong_is_named(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / wheel.name
    shutil.copy(wheel, broken)
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("tests/test_x.py", "")
    monkeypatch.setattr(release, "PACKAGE", CHECKOUT / "tools" / "local_airflow")
    monkeypatch.setattr(release, "__version__", "9.9.9")
    monkeypatch.setattr(release, "LICENSE", "MIT")
    monkeypatch.setattr(release, "ENTRY_POINTS", ("[console_scripts]",))
    faults = wheel_faults(broken)
    for expected in (
        "local_airflow/sync_command.py is missing",
        "tests/test_x.py does not belong there",
        "[console_scripts] is missing in entry_points.txt",
        "the license MIT is not said or not there",
        f"its version is {__version__}, and the package's 9.9.9",
    ):
        assert expected in faults


def test_a_source_distribution_has_what_is_required_to_build_from_it(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as opened:
        for name in (*SOURCES, ".local/cache", "plugins/registry_sync/py.typed"):
            opened.add(CHECKOUT / "LICENSE", arcname=f"registry_sync-1/{name}")
    assert source_faults(archive) == [
        "plugins/registry_sync/db/migrations/env.py is missing",
        ".local/cache does not belong there",
    ]
