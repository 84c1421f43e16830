"""Makes the files beside it: a database with all that a release can hold, and every document that was read of it.

It ran with the code of commit 668ebe0, the last before the modules were put together anew, whose schema is 0003. It
runs on both sides: what it imports had the same names there.

``previous_release.sql`` is the SQLite database. ``documents.txt`` has the exact text of each document that the REST API
then gave, on the line after its path; it is used without Airflow, as a user with all rights.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from sqlalchemy import update

from registry_sync.api import access
from registry_sync.api.access import AccessCheck
from registry_sync.api.app import create_app
from registry_sync.db import tables
from registry_sync.db.database import Database
from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.records import SyncMode
from registry_sync.domain.runs import RunState
from registry_sync.errors import RegistrySyncError
from support.certificates import CertificateAuthority
from support.hostile_registry import HostileRegistry, reply
from support.images import ContentBuilder, RepositoryContent
from support.schema1 import document, payload_of
from support.serving import serve, serve_referrers
from support.signatures import Signer, with_fallback_tags
from support.syncing import Installation

HERE = Path(__file__).parent
API = "/pulp/api/v3/"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
REPOSITORIES, REMOTES = "repositories/docker/docker/", "remotes/docker/docker/"
NAME, SIGNED, REFERRED, SPARSE, OTHER = "team/app", "team/signed", "team/referred", "team/sparse", "library/other"
KINDS = ("tags", "manifests", "blobs")


# -- the API, without Airflow around it ---------------------------------------------------------------------------


@cache
def _app() -> Any:
    """The app, which takes half a second to make, open to a user with all rights."""
    from airflow.api_fastapi.core_api.security import get_user

    app = create_app()
    allowed: dict[Any, Any] = {get_user: lambda: SimpleNamespace(get_name=lambda: "jane")}
    for value in vars(access).values():
        for dependency in value if isinstance(value, list) else ():
            if isinstance(getattr(dependency, "dependency", None), AccessCheck):
                allowed[dependency.dependency] = lambda: None
    app.dependency_overrides = allowed
    return app


class Api:
    """The REST API over ``database``, used in this process by a user with all rights; one at a time."""

    def __init__(self, database: Database) -> None:
        self._app = _app()
        self._app.state.parts = SimpleNamespace(opened=database)

    def texts(self, paths: Iterable[str]) -> dict[str, str]:
        """The exact text of the document at each path."""
        return asyncio.run(self._texts(paths))

    async def _texts(self, paths: Iterable[str]) -> dict[str, str]:
        async with self._client() as client:
            found = {}
            for path in paths:
                response = await client.get(path.removeprefix(API))
                assert response.status_code == 200, (path, response.text)
                found[path] = response.text
            return found

    def get(self, path: str) -> Any:
        """The document at a path."""
        return json.loads(self.texts([path])[path])

    def send(self, method: str, path: str, **document: Any) -> Any:
        """The document in the response to a change; None without one."""

        async def sent() -> httpx.Response:
            async with self._client() as client:
                return await client.request(method, path.removeprefix(API), json=document or None)

        response = asyncio.run(sent())
        assert response.is_success, (path, response.text)
        return response.json() if response.content else None

    def _client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self._app, root_path="/pulp")
        headers = {"Authorization": "Bearer anybody"}
        return httpx.AsyncClient(transport=transport, base_url=f"http://here.example{API}", headers=headers)

    def paths(self) -> Iterator[str]:
        """Every document of repositories, versions, remotes and content: lists, filters and orders, single ones."""
        for listed in (REPOSITORIES, REMOTES):
            yield listed
            yield f"{listed}?ordering=-pulp_created&limit=2&offset=1"
            for shown in self.get(f"{listed}?limit=1000")["results"]:
                yield shown["pulp_href"]
                yield f"{listed}?name={shown['name']}"
        yield f"{REPOSITORIES}?name__in=app,kept,nowhere"
        yield f"{REMOTES}?name__icontains=VERY"
        for repository in self.get(f"{REPOSITORIES}?limit=1000")["results"]:
            yield f"{repository['pulp_href']}usage/"
            yield f"{repository['versions_href']}?limit=2"
            for version in self.get(f"{repository['versions_href']}?limit=1000")["results"]:
                yield from self._paths_of(version)
        yield from self._content_paths()

    def _paths_of(self, version: dict[str, Any]) -> Iterator[str]:
        href = version["pulp_href"]
        yield href
        for part in ("diff", "holds", "missing_manifests", "provenance"):
            yield f"{href}{part}/"
        for kind in KINDS:
            yield f"content/docker/{kind}/?repository_version={href}"
        if version["base_version"] is not None:
            yield f"{href}diff/?base=0"
            for part in ("added", "removed"):
                yield from (unit["href"] for unit in version["content_summary"][part].values())

    def _content_paths(self) -> Iterator[str]:
        for kind in KINDS:
            listed = f"content/docker/{kind}/"
            units = self.get(f"{listed}?limit=1000")["results"]
            yield f"{listed}?limit=3&ordering=-digest"
            yield f"{listed}?digest={units[0]['digest']}"
            yield f"{listed}?media_type={units[0]['media_type']}&limit=3"
            for unit in units:
                yield unit["pulp_href"]
                if kind != "tags":
                    yield f"{unit['pulp_href']}provenance/"
        yield "content/docker/tags/?name__icontains=AT"


# -- what the database holds ---------------------------------------------------------------------------------------


class Upstreams:
    """What the registry holds, from sync to sync; every call gives the same."""

    def __init__(self) -> None:
        self.app = list(_states_of_app())
        self.signed, self.signed_later = _signed()
        self.sparse, self.missing = _sparse()
        build = ContentBuilder(seed=23)
        build.tag("1.0", build.image([build.blob(40)]))
        self.other = build.content()


def _states_of_app() -> Iterator[RepositoryContent]:
    """Indexes that share images, one inside another; tags that move, come and go; a layer that lies elsewhere."""
    build = ContentBuilder(seed=20)
    images = [build.image([build.blob(60), build.blob(50)], architecture=name) for name in ("amd64", "arm64")]
    build.tag("latest", build.index(images))
    build.tag("nested", build.index([build.index(images[:1]), images[1]]))
    build.tag("v1", images[0])
    build.tag("docker", build.image([build.blob(45)], docker=True))
    state = build.content()
    yield state.closure(state.tags)
    build.tag("v2", build.image([build.blob(41)], extra={"annotations": {"org.example.note": "ä \U0001f600"}}))
    build.tag("latest", images[1])
    state = build.content()
    yield state.closure({*state.tags} - {"docker"})
    build.tag("v1", build.image([build.blob(42)]))
    build.tag("broken", build.image([build.blob(43)]))
    state = build.content()
    yield state.closure({*state.tags} - {"docker"})


def _signed() -> tuple[RepositoryContent, RepositoryContent]:
    """An index with an attestation and signatures of two kinds; then one more signature, and nothing else."""
    build = ContentBuilder(seed=21)
    image = build.image([build.blob(44)])
    attestation = build.attestation(image, size_bytes=20)
    index = build.index([image, attestation], descriptors={attestation: build.attestation_entry(image)})
    build.tag("latest", index)
    signer = Signer(build)
    signer.cosign_signature(index)
    signer.bundle(image)
    first = build.content()
    signer.notation(index, is_cose=True)
    return first, build.content()


def _sparse() -> tuple[RepositoryContent, Digest]:
    """An index that lacks one of three images, and that one; an image that is held, and a layer from elsewhere."""
    build = ContentBuilder(seed=22)
    images = [build.image([build.blob(size)]) for size in (46, 47, 48)]
    build.tag("latest", build.index(images))
    layer, elsewhere = build.blob(51), build.blob(52)
    schema1 = build.manifest(payload_of(document([layer])), media_types.DOCKER_SCHEMA1, blobs=[layer])
    build.tag("old", schema1)
    foreign = build.descriptor(elsewhere, DOCKER_FOREIGN_LAYER, urls=["https://elsewhere.example/layer"])
    build.tag("windows", build.image(docker=True, extra={"layers": [foreign]}))
    return build.content(), images[1]


class Play:
    """Plays the history of an installation: syncs of every kind, and whatever else makes and removes versions."""

    def __init__(self, here: Installation, registry: HostileRegistry) -> None:
        self.here, self.registry = here, registry
        self.api = Api(here.database)
        self._numbers = itertools.count(1)

    def sync(self, repository: str, name: str = NAME, **more: Any) -> None:
        run_id = f"previous_release_{next(self._numbers)}"
        self.here.sync(repository, str(self.registry.url), name, run_id=run_id, **more)

    def href(self, repository: str) -> str:
        found = self.api.get(f"{REPOSITORIES}?name={repository}")["results"]
        return str(found[0]["pulp_href"])

    def everything(self, folder: Path) -> None:
        upstreams = Upstreams()
        self._remotes(folder)
        self._app(upstreams.app)
        self._kept(upstreams.app)
        self._referrers(upstreams)
        self._chosen(upstreams)
        self._gone(upstreams.other)

    def _remotes(self, folder: Path) -> None:
        """One remote with what people say, and one with all that can be said."""
        certificate = CertificateAuthority(folder / "ca").certificate_path.read_text()
        self.api.send("POST", REMOTES, name="plain", url="https://registry.example", upstream_name="a/b")
        self.api.send(
            "POST", REMOTES, name="every option", url="https://docker.io/", upstream_name="alpine",
            whitelist_tags="3.*, latest", exclude_tags="*-rc?", policy="streamed", download_concurrency=3,
            proxy_url="http://proxy.example:3128", ssl_validation=False, ssl_ca_certificate=certificate,
            ssl_client_certificate=certificate, platforms=["linux/amd64", "linux/arm/v7"], include_referrers=False,
            pulp_labels={"team": "a", "b": ""}, allow_sparse=True, allow_schema1=True, include_foreign_layers=True,
            max_held_share=0.1, max_removed_share=None, max_removed_tags=4,
        )  # fmt: skip
        remotes = self.here.database.remotes
        stored = remotes.by_name("every option")
        remotes.update(stored.id, replace(stored.spec, conn_id="registry_of_the_team"))

    def _app(self, states: list[RepositoryContent]) -> None:
        """Syncs, a hold, a rollback, words about versions, one deleted in the middle; bytes found broken."""
        first, second, third = states
        self.api.send("POST", REPOSITORIES, name="app", description="of the team", pulp_labels={"team": "a"})
        for state in (first, second):
            serve(self.registry, NAME, state)
            self.sync("app")
        serve(self.registry, NAME, first)
        self.sync("app", mode=SyncMode.ADDITIVE.value)
        serve(self.registry, NAME, third)
        lost = third.manifests[third.tags["broken"]].blobs[-1]
        self.registry.on("GET", f"/v2/{NAME}/blobs/{lost}", reply(404, b""))
        self.sync("app", is_last_try=True)
        versions = f"{self.href('app')}versions/"
        self.api.send("POST", f"{versions}1/rollback/", description="as it was")
        self.api.send("PATCH", f"{versions}2/", description="a good one", pulp_labels={"stage": "production"})
        self.api.send("DELETE", f"{versions}3/")
        blobs = sorted(first.blobs)
        checked_at = datetime(2026, 5, 1, 12, 0, tzinfo=timezone.utc)
        self.here.database.blob_checks.mark_verified(blobs[:2], checked_at)
        with self.here.database.writing() as connection:
            broken = update(tables.blobs).where(tables.blobs.c.digest == blobs[2])
            connection.execute(broken.values(stored_at=None, fault="broken", fault_at=checked_at))

    def _kept(self, states: list[RepositoryContent]) -> None:
        """Only the newest two versions; a copy of some tags, another of all; bytes that wait for a pull."""
        self.api.send("POST", REPOSITORIES, name="kept", retain_repo_versions=2)
        for state in (states[0], states[1], states[0]):
            serve(self.registry, NAME, state)
            self.sync("kept")
        target = self.api.send("POST", REPOSITORIES, name="promoted")["pulp_href"]
        self.api.send("POST", f"{target}copy_tags/", source_repository=self.href("kept"), names=["v*"])
        self.api.send(
            "POST", f"{target}copy_tags/", source_repository_version=f"{self.href('app')}versions/2/", mirror=True,
            description="all of it",
        )  # fmt: skip
        self.sync("later", policy="on_demand", include_tags=("late*", "v?"), exclude_tags=("v2",))

    def _referrers(self, upstreams: Upstreams) -> None:
        """Signatures by fallback tags; and by the referrers API, once it responds."""
        serve(self.registry, SIGNED, with_fallback_tags(upstreams.signed))
        self.sync("signed", SIGNED)
        for digest in upstreams.signed.manifests:
            self.registry.on("GET", f"/v2/{REFERRED}/referrers/{digest}", reply(403, b""))
        serve(self.registry, REFERRED, upstreams.signed)
        self.sync("referred", REFERRED)
        serve_referrers(self.registry, REFERRED, upstreams.signed_later)
        serve(self.registry, REFERRED, upstreams.signed_later)
        self.sync("referred", REFERRED)

    def _chosen(self, upstreams: Upstreams) -> None:
        """An index that lacks an entry, where that is allowed; and one platform of two."""
        serve(self.registry, SPARSE, upstreams.sparse)
        for method in ("GET", "HEAD"):
            self.registry.on(method, f"/v2/{SPARSE}/manifests/{upstreams.missing}", reply(404, b""))
        url = str(self.registry.url)
        self.api.send("POST", REMOTES, name="sparse", url=url, upstream_name=SPARSE, allow_sparse=True)
        self.sync("sparse", SPARSE)
        serve(self.registry, NAME, upstreams.app[0])
        self.sync("one-platform", platforms=("linux/amd64",), include_tags=("latest", "v1"))

    def _gone(self, other: RepositoryContent) -> None:
        """A repository that was deleted, one whose upstream was replaced and renamed, one whose sync failed."""
        serve(self.registry, OTHER, other)
        self.sync("deleted", OTHER)
        self.api.send("DELETE", self.href("deleted"))
        self.sync("old-name", OTHER)
        serve(self.registry, NAME, other)
        self.sync("old-name", replace_upstream=True)
        self.api.send("PATCH", self.href("old-name"), name="renamed")
        build = ContentBuilder(seed=24)
        build.tag("latest", build.image([build.blob(30)]))
        serve(self.registry, NAME, build.content())

        def fail(stage: str, run: Any) -> None:
            if stage == "fetch_blobs":
                self.here.database.runs.finish(run.id, RunState.FAILED, error="stopped by the test")
                raise RegistrySyncError("stopped by the test")

        try:
            self.sync("stopped", before=fail)
        except RegistrySyncError:
            return
        raise AssertionError("the sync did not stop")


def main() -> None:
    """Plays the history, reads every document, and writes both files."""
    with tempfile.TemporaryDirectory() as folder, HostileRegistry() as registry:
        here = Installation.embedded(Path(folder))
        Play(here, registry).everything(Path(folder))
        api = Api(here.database)
        texts = api.texts(dict.fromkeys(path.removeprefix(API) for path in api.paths()))
        here.database.close()
        with sqlite3.connect(Path(folder) / "registry_sync.db") as connection:
            (HERE / "previous_release.sql").write_text("\n".join(connection.iterdump()) + "\n")
    (HERE / "documents.txt").write_text("".join(f"{path}\n{text}\n" for path, text in texts.items()))
    print(len(texts), "documents of", sorted({re.sub(r"[0-9a-f-]{36}|\d+|=.*", "…", path) for path in texts}))


if __name__ == "__main__":
    main()
