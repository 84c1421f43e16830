"""Documents of a kept database, read by its stores without a server, byte for byte as the API responds with them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from registry_sync.db.database import Database
from registry_sync.pulp.content_documents import (
    BlobDocument,
    BlobProvenanceDocument,
    ManifestDocument,
    ManifestProvenanceDocument,
    TagDocument,
)
from registry_sync.pulp.documents import Document
from registry_sync.pulp.repository_documents import RemoteDocument, RepositoryDocument, UsageDocument
from registry_sync.pulp.sync_documents import SyncDocument, tasks_of
from registry_sync.pulp.version_documents import ProvenanceDocument, VersionDocument, version_document
from support.golden.make import DAG_ID
from support.rest_golden import FOLDER, load_database

Read = Callable[[Database, str, str], Any]
#: What a path reads, by what follows the prefix of the API: the document, and the value by one id or two.
READS: dict[str, tuple[type[Document], Read]] = {
    "repositories/docker/docker/(I)/": (RepositoryDocument, lambda found, id_, _: found.repositories.get(id_)),
    "repositories/docker/docker/(I)/usage/": (UsageDocument, lambda found, id_, _: found.disk_usage.repository(id_)),
    "repositories/docker/docker/(I)/versions/(N)/": (
        VersionDocument, lambda found, id_, number: found.versions.get(id_, int(number)),
    ),
    "repositories/docker/docker/(I)/versions/(N)/provenance/": (
        ProvenanceDocument, lambda found, id_, number: found.provenance.version(id_, int(number)),
    ),
    "remotes/docker/docker/(I)/": (RemoteDocument, lambda found, id_, _: found.remotes.get(id_)),
    "syncs/(I)/": (SyncDocument, lambda found, id_, _: found.runs.get(id_)),
    "content/docker/blobs/(N)/": (BlobDocument, lambda found, id_, _: found.units.blob(int(id_))),
    "content/docker/blobs/(N)/provenance/": (
        BlobProvenanceDocument, lambda found, id_, _: found.provenance.blob(found.units.blob(int(id_)).digest),
    ),
    "content/docker/manifests/(N)/": (ManifestDocument, lambda found, id_, _: found.units.manifest(int(id_))),
    "content/docker/manifests/(N)/provenance/": (
        ManifestProvenanceDocument,
        lambda found, id_, _: found.provenance.manifest(found.units.manifest(int(id_)).digest),
    ),
    "content/docker/tags/(N)/": (TagDocument, lambda found, id_, _: found.units.tag(int(id_))),
}  # fmt: skip
RESPONSES = [
    (path.removeprefix("/pulp/api/v3/"), body)
    for path, status, body in json.loads((FOLDER / "responses.json").read_text(encoding="utf-8"))
    if status == 200
]
#: Of every run that was requested over REST; Airflow had them all.
RUN_IDS = {f"registry_sync__00000000-0000-4000-8000-{number:012}" for number in range(1, 8)}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """The kept database, upgraded."""
    file = tmp_path_factory.mktemp("kept") / "registry_sync.db"
    load_database(file)
    with Database.connect(f"sqlite:///{file}") as opened:
        opened.ready()
        yield opened


@pytest.mark.parametrize("path", READS)
def test_a_document_is_read_from_the_value_of_its_store(database: Database, path: str) -> None:
    document, read = READS[path]
    pattern = re.compile(path.replace("I", "[0-9a-f-]{36}").replace("N", "[0-9]+"))
    found = [(match, body) for known, body in RESPONSES if (match := pattern.fullmatch(known))]
    assert found
    for match, body in found:
        value = read(database, match[1], match[match.re.groups])
        shown = document.model_validate(value, context=tasks_of(DAG_ID, RUN_IDS)).model_dump_json()
        assert shown == json.dumps(body, ensure_ascii=False, separators=(",", ":")), match[0]


def test_an_xcom_has_the_documented_fields_of_a_version_alone(database: Database) -> None:
    repository = database.repositories.by_name("library/app")
    documented = ["pulp_created", "pulp_href", "base_version", "content_summary", "number"]
    for version in database.versions.page(repository.id).items:
        whole = VersionDocument.model_validate(version).model_dump(mode="json")
        assert version_document(version) == {name: whole[name] for name in documented}
        assert list(version_document(version)) == documented
