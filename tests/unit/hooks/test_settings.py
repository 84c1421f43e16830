"""The section ``[registry_sync]``: defaults below Airflow's home, and clear words for values that make no sense."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from registry_sync.domain.serving import BlobDelivery
from registry_sync.errors import ConfigurationError
from registry_sync.hooks.settings import load_settings


def test_the_defaults_are_embedded_below_airflows_home() -> None:
    settings = load_settings()
    assert settings.sql_alchemy_conn.startswith("sqlite:////")
    assert settings.sql_alchemy_conn.endswith("/registry_sync/registry_sync.db")
    assert settings.blob_store.startswith("file:///")
    assert settings.blob_store.endswith("/registry_sync/blobs")
    assert (settings.max_shards, settings.min_shard_bytes, settings.sync_dag_id) == (4, 1 << 30, "registry_sync")
    assert settings.orphan_grace == timedelta(hours=24)


def test_what_is_set_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", "postgresql://user@host/db")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", tmp_path.as_uri())
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MAX_SHARDS", "7")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__MIN_SHARD_MIB", "3")
    settings = load_settings()
    assert settings.sql_alchemy_conn == "postgresql://user@host/db"
    assert settings.blob_store == tmp_path.as_uri()
    assert (settings.max_shards, settings.min_shard_bytes) == (7, 3 * 1024 * 1024)


def test_the_airflow_of_logins_is_a_url_and_trusted_proxies_are_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().pull_login_url, load_settings().pull_trusted_proxies) == (None, ())
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__PULL_LOGIN_URL", "https://airflow.example/base")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__PULL_TRUSTED_PROXIES", "127.0.0.1, 10.1.2.3/8 ::1")
    settings = load_settings()
    assert settings.pull_login_url == "https://airflow.example/base"
    assert settings.pull_trusted_proxies == ("127.0.0.1/32", "10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PULL_LOGIN_URL", "airflow.example:8080"),
        ("PULL_LOGIN_URL", "https://anna:secret@airflow.example"),
        ("PULL_LOGIN_URL", "ftp://airflow.example"),
        ("PULL_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("PULL_TRUSTED_PROXIES", "proxy.example"),
    ],
)
def test_what_is_no_url_and_no_network_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__REGISTRY_SYNC__{name}", value)
    with pytest.raises(ConfigurationError, match=name.lower()) as raised:
        load_settings()
    assert "secret" not in str(raised.value)


@pytest.mark.rule("A9.10")
def test_a_contact_is_a_mail_address_or_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().contact is None
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__CONTACT", "mirrors@example.org")
    assert load_settings().contact == "mirrors@example.org"
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__CONTACT", "somebody")
    with pytest.raises(ConfigurationError, match="contact = 'somebody': give a mail address"):
        load_settings()


@pytest.mark.parametrize("name", ["max_shards", "min_shard_mib"])
@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_count_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__REGISTRY_SYNC__{name.upper()}", value)
    with pytest.raises(ConfigurationError, match=name):
        load_settings()


@pytest.mark.parametrize(("value", "hours"), [("0", 0), ("36", 36)])
def test_the_grace_of_orphans_is_given_in_hours(monkeypatch: pytest.MonkeyPatch, value: str, hours: int) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__ORPHAN_GRACE_HOURS", value)
    assert load_settings().orphan_grace == timedelta(hours=hours)


@pytest.mark.parametrize("value", ["-1", "a day", "0.5", "87601"])
def test_a_grace_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__ORPHAN_GRACE_HOURS", value)
    with pytest.raises(ConfigurationError, match="orphan_grace_hours"):
        load_settings()


def test_who_sends_blobs_is_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().blob_delivery is BlobDelivery.DIRECT
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_DELIVERY", "redirect")
    assert load_settings().blob_delivery is BlobDelivery.REDIRECT
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_DELIVERY", "apache")
    with pytest.raises(ConfigurationError, match="blob_delivery = 'apache': give one of direct, redirect, nginx"):
        load_settings()


@pytest.mark.parametrize("value", ["9", "3601", "-1", "a minute"])
def test_the_life_of_a_signed_url_is_bounded(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert load_settings().signed_url_seconds == 300
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SIGNED_URL_SECONDS", value)
    with pytest.raises(ConfigurationError, match=r"signed_url_seconds = .*: give 10 to 3,600"):
        load_settings()
