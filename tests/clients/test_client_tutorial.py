"""crane and oras do what the tutorial about pulling says of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from integration.serve.test_pull_tutorial import Reader, reader

__all__ = ["reader"]
_PROGRAMS = Path(__file__).parents[2] / ".local/go/bin"


def _typed(reader: Reader, folder: Path, program: str) -> list[str]:
    environment = {**os.environ, "HOME": str(folder), "DOCKER_CONFIG": str(folder / ".docker")}
    return [
        subprocess.run(
            [str(_PROGRAMS / program), *words], check=True, cwd=folder, env=environment, capture_output=True, text=True
        ).stdout
        for words in reader.commands(program)
    ]


def test_crane_says_the_digest_and_pulls(reader: Reader, tmp_path: Path) -> None:
    digest, _ = _typed(reader, tmp_path, "crane")
    assert digest.strip() == reader.tags["latest"]
    assert reader.tags["latest"] in (tmp_path / "crane-layout" / "index.json").read_text()


def test_oras_discovers_and_copies(reader: Reader, tmp_path: Path) -> None:
    discovered, _ = _typed(reader, tmp_path, "oras")
    assert reader.tags["latest"] in discovered
    assert reader.tags["latest"] in (tmp_path / "oras-layout" / "index.json").read_text()
