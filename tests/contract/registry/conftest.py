"""Each test of the contract runs on the reader in memory and on the real client.

What a registry holds is read from Debian's ``docker-registry`` by the real client; what no real registry does is
scripted, and sent to it over HTTP as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from registry_sync.domain.references import RepositoryName
from support.memory_over_http import over_http
from support.memory_registry import MemoryRegistry
from support.registry import RegistryServer
from support.registry_sources import Source

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="session")
def private_debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path_factory.mktemp("private"), basic_auth=True) as server:
        yield server


@pytest.fixture
def name() -> RepositoryName:
    """A repository of its own for each test."""
    return RepositoryName(f"team/app-{next(_numbers)}")


def _source(registry: Any, *, is_real: bool, url: str) -> Iterator[Source]:
    source = Source(registry, is_real, url)
    yield source
    source.close()


@pytest.fixture(params=["memory", "debian"])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    """What is filled over its interface: in memory, or Debian's."""
    if request.param == "memory":
        yield from _source(MemoryRegistry(), is_real=False, url="")
    else:
        server: RegistryServer = request.getfixturevalue("debian")
        yield from _source(server, is_real=True, url=server.url)


@pytest.fixture(params=["memory", "debian"])
def private(request: pytest.FixtureRequest) -> Iterator[Source]:
    """The same, which asks for a password."""
    if request.param == "memory":
        yield from _source(MemoryRegistry(basic_auth=True), is_real=False, url="")
    else:
        server: RegistryServer = request.getfixturevalue("private_debian")
        yield from _source(server, is_real=True, url=server.url)


@pytest.fixture(params=["memory", "http"])
def scripted(request: pytest.FixtureRequest) -> Iterator[Source]:
    """A registry that has what it is filled with, lists referrers, and does what it is told to."""
    registry = MemoryRegistry(has_referrers_api=True, page_size=4)
    if request.param == "memory":
        yield from _source(registry, is_real=False, url="")
    else:
        with over_http(registry) as server:
            yield from _source(registry, is_real=True, url=server.base)
