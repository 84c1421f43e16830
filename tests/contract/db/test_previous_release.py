"""A database of the previous release, made by its own code, is upgraded and read over REST as that code had read it.

What is told of tasks and of the status is Airflow's and the release's, and is not among the documents.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import DateTime, MetaData, Table, insert, select, text

from registry_sync.db import schema
from registry_sync.db.database import Database
from registry_sync.db.engine import make_engine, read_url
from registry_sync.db.tables import metadata
from registry_sync.hooks.stores import open_blob_store
from support import previous_release
from support.memory_registry import MemoryRegistry
from support.previous_release.make import NAME, Api, Upstreams
from support.syncing import Installation

if TYPE_CHECKING:
    from contract.db.conftest import Prepared

FOLDER = Path(previous_release.__file__).parent
#: The schema of that release.
REVISION = "0003"

#: What answers to documents of a kind say since then: by the field, its value here and why it came.
NEW_FIELDS: dict[str, dict[str, tuple[Any, str]]] = {
    "remotes/": {
        "max_total_bytes": (None, "a limit of what a sync stores, that remotes had not"),
        "digest_list": ("auto", "from where the digests of all tags are taken at once"),
        "min_tags": (None, "the fewest tags that a version may have"),
        "order": ("version", "what the newest tags are"),
        **dict.fromkeys(("semver", "newest", "newer_than"), (None, "a rule for tags")),
        **{name: ([], "rules for tags") for name in ("regex", "regex_all", "exclude_regex", "digests", "tag_sets")},
    }
}
#: Requests that the previous release did not make, and so did not count.
NEW_COUNT = '"digest_pages":0,'


def documents() -> dict[str, str]:
    """The exact text of each document as that release gave it, by path."""
    lines = (FOLDER / "documents.txt").read_text().split("\n")
    return dict(zip(lines[:-1:2], lines[1::2], strict=True))


def without_new_fields(path: str, body: str) -> str:
    """``body`` as the previous release would have written it."""
    body = body.replace(NEW_COUNT, "")
    new = next((fields for prefix, fields in NEW_FIELDS.items() if path.startswith(prefix)), {})
    if not new:
        return body
    document = json.loads(body)
    for shown in document.get("results", [document]):
        for name, (value, _) in new.items():
            assert shown.pop(name) == value, (path, name)
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def load_file(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript((FOLDER / "previous_release.sql").read_text())
    connection.close()


def copy_rows(source_url: str, target_url: str) -> None:
    """Every row of one database into another of that release's schema; times that have no zone are in UTC."""
    source, target = make_engine(read_url(source_url)), make_engine(read_url(target_url))
    schema.upgrade(target, REVISION)
    found = MetaData()
    found.reflect(target)
    with source.connect() as reading, target.begin() as writing:
        for table in found.sorted_tables:
            if table.name in metadata.tables:
                rows = [in_utc(table, dict(row._mapping)) for row in reading.execute(select(table))]
                if rows:
                    writing.execute(insert(table), rows)
        for name in ("manifests", "blobs", "tags"):
            writing.execute(text(f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM {name}"))
    source.dispose()
    target.dispose()


def in_utc(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    times = {column.name for column in table.columns if isinstance(column.type, DateTime)}
    return {
        name: value.replace(tzinfo=timezone.utc) if name in times and isinstance(value, datetime) else value
        for name, value in row.items()
    }


@pytest.fixture
def database(empty_url: str, dialect: str, tmp_path: Path, prepared: Prepared) -> Iterator[Database]:
    """The old database, upgraded."""
    prepared.once(empty_url, ("previous release", dialect), partial(load_and_upgrade, empty_url, tmp_path))
    with Database.connect(empty_url) as opened:
        yield opened


def load_and_upgrade(url: str, folder: Path) -> None:
    if url.startswith("sqlite"):
        load_file(Path(url.removeprefix("sqlite:///")))
    else:
        load_file(folder / "old.db")
        copy_rows(f"sqlite:///{folder}/old.db", url)
    with Database.connect(url) as opened:
        assert opened.revision() == REVISION
        opened.upgrade()
        opened.check()


def assert_reads_the_same(database: Database, kept: dict[str, str]) -> None:
    found = Api(database).texts(kept)
    assert {path: without_new_fields(path, body) for path, body in found.items()} == kept


@pytest.mark.slow
def test_every_document_reads_the_same_byte_for_byte(database: Database) -> None:
    expected = documents()
    assert len(expected) > 300
    assert_reads_the_same(database, expected)


def test_the_documents_are_of_all_that_can_happen_to_versions() -> None:
    """That the files are not poorer than they say: a document that is not in them proves nothing."""
    everything = "\n".join(documents().values())
    for said in (
        '"held_tags":[{', '"missing_manifests":[{', '"referrers_problem":"', '"kind":"rollback"', '"kind":"copy"',
        '"retain_repo_versions":2', '"policy":"streamed"', '"policy":"on_demand"', '"conn_id":"registry',
        '"is_foreign":true', '"pulp_labels":{"stage":"production"}', "\U0001f600", "schema 1",
    ):  # fmt: skip
        assert said in everything, said


@pytest.mark.slow
def test_syncs_go_on_and_old_versions_stay_as_they_were(database: Database, tmp_path: Path) -> None:
    """Versions of the previous release and those of this one are of one history."""
    here = Installation(database, open_blob_store((tmp_path / "blobs").as_uri()))
    registry = MemoryRegistry()
    registry.serve(NAME, Upstreams().app[1])
    version = here.sync("app", registry.url, NAME, replace_upstream=True)
    assert version is not None
    assert (version.number, version.base_number, version.holds) == (6, 5, ())
    assert database.versions.tags(version.repository_id) == Upstreams().app[1].tags
    old = {path: body for path, body in documents().items() if re.fullmatch(r".*/versions/\d+/(\w+/)?", path)}
    assert len(old) > 60
    assert_reads_the_same(database, old)
