"""A pull server over what was really synced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry_sync.domain.serving import DistributionSpec
from support.filling import place
from support.images import RepositoryContent
from support.pull_server import PullClient, PullServer, ThreadedPullServer
from support.registry import RegistryServer
from support.shapes import every_kind, signed_application
from support.signatures import with_fallback_tags
from support.syncing import Installation, new_client


@dataclass(frozen=True)
class Served:
    """Serves ``kinds`` and ``signed`` to everybody, and the first as ``team/private`` to the ``robot``."""

    server: PullClient
    here: Installation
    kinds: RepositoryContent
    signed: RepositoryContent
    robot: tuple[str, str]


@pytest.fixture(scope="module", params=[PullServer, ThreadedPullServer], ids=["granian", "uvicorn"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two repositories under three base paths."""
    folder = tmp_path_factory.mktemp("served")
    kinds, signed = every_kind(seed=31), with_fallback_tags(signed_application(seed=32))
    here = Installation.embedded(folder)
    with RegistryServer(folder / "upstream") as upstream:
        for name, content in (("kinds", kinds), ("signed", signed)):
            place(upstream, name, content)
            here.sync(name, upstream.url, name)
    database = here.database
    for base_path, name, is_private in (("kinds", "kinds", False), ("signed", "signed", False)):
        spec = DistributionSpec(base_path, base_path, database.repositories.by_name(name).id, is_private=is_private)
        database.distributions.create(spec)
    private = database.repositories.by_name("kinds")
    database.distributions.create(DistributionSpec("private", "team/private", private.id))
    _, secret = database.robots.create("ci", ["team/*"])
    is_threaded = request.param is ThreadedPullServer
    with ThreadedPullServer(here, new_client) if is_threaded else request.param(folder) as server:
        yield Served(server, here, kinds, signed, ("ci", secret))
    database.close()


@pytest.fixture(scope="session")
def clients_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where container clients keep what they know."""
    return tmp_path_factory.mktemp("clients")
