"""What these tests rely on holds whichever tests ran before them in the same process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.rest_api import RestClient


@pytest.fixture(scope="module", autouse=True)
def _somebody_was_first() -> Iterator[None]:
    """Airflow has read its key, which it does once, while no server's settings are in force."""
    from airflow.models.crypto import get_fernet

    get_fernet.cache_clear()
    get_fernet()
    yield
    get_fernet.cache_clear()


def test_passwords_are_encrypted_whoever_requested_the_key_first(admin: RestClient, name: str) -> None:
    from airflow.models import Connection
    from airflow.utils.session import create_session

    remote = admin.post(
        "remotes/docker/docker/", name=name, url="https://registry.example", upstream_name="app", password="hunter22"
    )
    with create_session() as session:
        row = session.query(Connection).filter(Connection.conn_id == remote["conn_id"]).one()
        assert row.is_encrypted
        assert "hunter22" not in row._password
        assert row.password == "hunter22"
