"""A fleet is read once for each content: what is compiled is used while it fits, and made again when it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import registry_sync
from registry_sync.fleet import loading
from registry_sync.fleet.declared_fleet import Fleet
from registry_sync.fleet.loading import load_fleet

TEXT = """\
version: 1
include: ['d/*.yaml']
groups: {g: {batch: true, schedule: 5h}}
mirrors:
  - {source: quay.io/a/b, owner: "${OWNER:-none}", remote: {ssl_ca_certificate: {file: ca.pem}}, freshness: 6h}
  - {source: quay.io/a/c, group: g, notify: [{on: held, to: x}]}
  - {source: quay.io/a/d, polici: x}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A fleet with everything that it can depend on."""
    folder = tmp_path / "fleet"
    (folder / "d").mkdir(parents=True)
    (folder / "ca.pem").write_text("PEM")
    (folder / "d" / "one.yaml").write_text("version: 1\nmirrors: [{source: quay.io/a/one}]\n")
    (folder / "mirrors.yaml").write_text(TEXT)
    return folder / "mirrors.yaml"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def compiled(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.json"))


def shape(fleet: Fleet) -> object:
    return (fleet.mirrors, fleet.groups, fleet.mistakes, fleet.is_unreadable)


def load(path: Path, cache: Path, **environment: str) -> Fleet:
    return load_fleet(path, cache, environment)


def is_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The paths of fleets that are read, and not taken from what is compiled."""
    from registry_sync.fleet import fleet_reading

    read: list[Path] = []
    original = fleet_reading.read_fleet

    def noted(path: Path, environment: dict[str, str]) -> Fleet:
        read.append(path)
        return original(path, environment)

    monkeypatch.setattr(fleet_reading, "read_fleet", noted)
    return read


def test_what_is_compiled_is_what_was_read(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = is_read(monkeypatch)
    first, second = load(path, cache), load(path, cache)
    assert read == [path]
    assert len(first.mirrors) == 3
    assert len(first.mistakes) == 1
    assert shape(first) == shape(second) == shape(load_fleet(path, None, {}))
    assert first.mirror("a/b").remote == second.mirror("a/b").remote


@pytest.mark.slow
def test_a_process_that_finds_it_compiled_imports_no_yaml_and_nothing_of_airflow(path: Path, cache: Path) -> None:
    load(path, cache)
    code = (
        "import sys; from pathlib import Path; from registry_sync.fleet.loading import load_fleet; "
        f"f = load_fleet(Path({str(path)!r}), Path({str(cache)!r}), {{}}); assert len(f.mirrors) == 3; "
        "f.mirror('a/b').remote; "
        "print([m for m in sys.modules if m.partition('.')[0] in "
        "('yaml', 'croniter', 'airflow', 'sqlalchemy', 'requests', 're2', 'jsonschema')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(registry_sync.__file__).parents[1])},
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["mirrors.yaml", "d/one.yaml", "ca.pem", "d/two.yaml"])
def test_another_content_is_read_again(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    load(path, cache)
    read = is_read(monkeypatch)
    changed = path.parent / name
    text = changed.read_text() if changed.exists() else "version: 1\nmirrors: [{source: quay.io/a/two}]\n"
    changed.write_text(text + "# changed\n")
    load(path, cache)
    load(path, cache)
    assert read == [path]


def test_mistakes_in_files_are_compiled_too(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path.parent / "d" / "bad.yaml").write_text("version: [")
    (path.parent / "d" / "out.yaml").symlink_to("/etc/hostname")
    assert len(load(path, cache).mistakes) == 3
    read = is_read(monkeypatch)
    assert len(load(path, cache).mistakes) == 3
    assert read == []


def test_a_file_that_is_gone_is_noticed(path: Path, cache: Path) -> None:
    assert len(load(path, cache).mirrors) == 3
    (path.parent / "d" / "one.yaml").unlink()
    assert len(load(path, cache).mirrors) == 2
    path.unlink()
    assert load(path, cache).is_unreadable


def test_another_value_of_a_variable_or_another_release_is_read_again(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(path, cache).mirror("a/b").owner == "none"
    read = is_read(monkeypatch)
    assert load(path, cache, OWNER="me").mirror("a/b").owner == "me"
    assert load(path, cache, OWNER="me", OTHER="x").mirror("a/b").owner == "me"
    assert len(read) == 1
    monkeypatch.setattr(registry_sync, "__version__", "9.9")
    load(path, cache, OWNER="me")
    assert len(read) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": {}}', "null", "\x00"])
def test_a_compiled_fleet_that_is_damaged_is_made_again(
    path: Path, cache: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = shape(load(path, cache))
    (kept,) = compiled(cache)
    kept.write_text(content)
    assert shape(load(path, cache)) == whole
    assert "is made again" in caplog.text
    assert shape(load(path, cache)) == whole
    json.loads(kept.read_text())


def test_a_cache_that_cannot_be_written_costs_only_time(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert len(load(path, tmp_path / "file" / "cache").mirrors) == 3
    assert "read again each time" in caplog.text


def test_a_failed_write_leaves_nothing(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.json, "dump", full)
    assert len(load(path, cache).mirrors) == 3
    assert list(cache.iterdir()) == []


def test_files_of_others_are_not_accessible(path: Path, cache: Path) -> None:
    load(path, cache)
    (kept,) = compiled(cache)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700


def test_older_contents_are_removed_and_other_fleets_stay(path: Path, cache: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("version: 1\n")
    load(other, cache)
    for number in range(8):
        path.write_text(f"{TEXT}# {number}\n")
        load(path, cache)
    assert len(compiled(cache)) == 1 + 4
    assert load(path, cache).mirrors


@pytest.mark.slow
def test_processes_that_compile_at_once_get_the_same(path: Path, cache: Path) -> None:
    code = (
        "from pathlib import Path; from registry_sync.fleet.loading import load_fleet; "
        f"print(len(load_fleet(Path({str(path)!r}), Path({str(cache)!r}), {{}}).mirrors))"
    )
    environment = {"PYTHONPATH": str(Path(registry_sync.__file__).parents[1])}
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in started] == ["3\n"] * 3
    assert len(compiled(cache)) == 1
    assert [entry for entry in cache.iterdir() if entry.suffix != ".json"] == []
