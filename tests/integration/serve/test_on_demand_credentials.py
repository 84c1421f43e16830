"""With which credentials the pull server, which has no Airflow in it, reads remotes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from registry_sync.errors import ConfigurationError, RepositoryUnavailable
from registry_sync.hooks.pull_clients import PullClients
from support.hook_connections import REPOSITORY, guarded, plain, remote_of
from support.hostile_registry import HostileRegistry


@pytest.fixture
def registry() -> Iterator[HostileRegistry]:
    with HostileRegistry() as server:
        guarded(server)
        yield server


def _tags(registry: HostileRegistry, conn_id: str | None) -> tuple[str, ...]:
    return tuple(map(str, PullClients()(remote_of(registry, conn_id=conn_id)).list_tags(REPOSITORY).tags))


def _fields(registry: HostileRegistry) -> dict[str, object]:
    return {"conn_type": "registry", "login": "alice", "password": "correct horse", **plain(registry)}


def test_a_connection_comes_from_the_environment(registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OF_THE_SERVER", json.dumps(_fields(registry)))
    assert _tags(registry, "of_the_server") == ("a",)


@pytest.mark.slow
@pytest.mark.usefixtures("_home_with_database")
def test_a_connection_comes_from_airflows_database(registry: HostileRegistry) -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    fields = _fields(registry)
    with create_session() as session:
        session.add(Connection("of_the_database", **{**fields, "extra": json.dumps(fields["extra"])}))  # type: ignore[arg-type]
    assert _tags(registry, "of_the_database") == ("a",)
    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_id == "of_the_database"))


@pytest.mark.slow
def test_a_connection_that_is_nowhere_is_named(registry: HostileRegistry) -> None:
    with pytest.raises(ConfigurationError, match=r"'of_nobody' is found neither in .*AIRFLOW_CONN_OF_NOBODY"):
        _tags(registry, "of_nobody")


def test_a_remote_without_a_connection_is_read_anonymously(registry: HostileRegistry) -> None:
    with pytest.raises(RepositoryUnavailable):
        _tags(registry, None)
    assert [request.header("authorization") for request in registry.asked()] == [None] * len(registry.asked())


def test_a_remote_without_a_connection_needs_no_airflow() -> None:
    program = (
        "import sys; from registry_sync.domain.remote import RemoteSpec;"
        "from registry_sync.hooks.pull_clients import PullClients; import registry_sync.serve.server;"
        "PullClients('ops@example.org')(RemoteSpec.parse('a', 'https://registry.example', 'a/b'));"
        "assert 'airflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
