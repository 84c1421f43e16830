"""A real registry's repositories as mirrors: found, and kept when they are gone upstream."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from registry_sync.fleet.loading import load_fleet
from support.commands import run_command
from support.filling import push
from support.images import ContentBuilder
from support.registry import RegistryServer


def test_mirrors_are_found_and_what_is_gone_stays(
    registry: RegistryServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = ContentBuilder(seed=1)
    build.tag("1", build.image([build.blob(10)]))
    for name in ("infra/db", "infra/web", "team/app"):
        push(registry, name, build.content())
    file = tmp_path / "found.yaml"
    words = ("fleet", "discover", registry.url, "--include", "infra/*", "--output", str(file))
    run_command(*words)
    assert "2 mirrors added" in capsys.readouterr().err
    fleet = load_fleet(file, None, {})
    assert (fleet.mistakes, [mirror.repository for mirror in fleet.mirrors]) == ((), ["infra/db", "infra/web"])
    assert [str(mirror.remote.url) for mirror in fleet.mirrors if mirror.remote] == [registry.url] * 2
    written = file.read_bytes()
    run_command(*words)
    assert file.read_bytes() == written, "a repeat writes nothing"
    shutil.rmtree(registry.storage / "docker/registry/v2/repositories/infra/db")
    push(registry, "infra/new", build.content())
    with pytest.raises(SystemExit) as ended:
        run_command(*words)
    assert ended.value.code == 1
    assert f"http://{registry.netloc}/infra/db: gone upstream, its mirror stays" in capsys.readouterr().err
    names = [mirror.repository for mirror in load_fleet(file, None, {}).mirrors]
    assert names == ["infra/db", "infra/web", "infra/new"]
