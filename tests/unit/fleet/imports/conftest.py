"""Files of other tools, imported, and what is made of them loaded as a fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import pytest
import yaml

from registry_sync.domain.mirrors import Mirror
from registry_sync.domain.references import TagName
from registry_sync.fleet.declared_fleet import Fleet
from registry_sync.fleet.definition import json_schema
from registry_sync.fleet.imports.formats import ImportOptions, import_fleet
from registry_sync.fleet.imports.imported_fleet import SCHEMA_LINE, ImportedFleet
from registry_sync.fleet.loading import load_fleet


@dataclass(frozen=True)
class Imported:
    """An import, and the fleet that was loaded from what it wrote."""

    result: ImportedFleet
    fleet: Fleet

    def mirror(self, repository: str) -> Mirror:
        return self.fleet.mirror(repository)

    def options(self, repository: str) -> dict[str, Any]:
        """The rules for tags of a mirror, as options of its remote; those that are empty are left out."""
        remote = self.mirror(repository).remote
        assert remote is not None
        names = ("include_tags", "exclude_tags", "regex", "exclude_regex", "semver", "digests", "tag_sets")
        return {name: value for name, value in remote.document().items() if name in names and value}

    def selected(self, repository: str, tags: list[str]) -> list[str]:
        """Those of ``tags`` that the mirror selects."""
        remote = self.mirror(repository).remote
        assert remote is not None
        return [str(tag) for tag in remote.tag_filter.select(map(TagName, tags)).tags]

    def warned(self) -> list[str]:
        return [str(finding) for finding in self.result.findings if finding.is_warning]

    def said(self) -> str:
        return "\n".join(map(str, self.result.findings))


#: Imports a text, of a format or the recognised one, and loads what was written.
Import = Callable[..., Imported]


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Every document fits the schema and loads without a mistake, whatever the file was."""
    schema = jsonschema.Draft202012Validator(json_schema())

    def load(text: str, of: str | None = None, options: ImportOptions | None = None, **environment: str) -> Imported:
        result = import_fleet(dedent(text).encode(), "theirs.yaml", of, options)
        assert result.text.startswith(f"{SCHEMA_LINE}\nversion: 1\n")
        schema.validate(yaml.safe_load(result.text))
        path = tmp_path / "mirrors.yaml"
        path.write_text(result.text, encoding="utf-8")
        fleet = load_fleet(path, None, environment)
        assert fleet.mistakes == ()
        assert len(fleet.documents) == result.mirror_count
        return Imported(result, fleet)

    return load
