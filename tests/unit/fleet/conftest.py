"""Fleets of files in a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from registry_sync.fleet.declared_fleet import Fleet
from registry_sync.fleet.loading import load_fleet

#: Writes files, by their names, and loads the fleet.
Declare = Callable[..., Fleet]


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """Loads a fleet of ``mirrors.yaml`` with the given text, and of further files by name."""

    def load(text: str, /, *, environment: Mapping[str, str] | None = None, **files: str) -> Fleet:
        for name, content in {"mirrors.yaml": text, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content), encoding="utf-8")
        return load_fleet(tmp_path / "mirrors.yaml", None, environment or {})

    return load
