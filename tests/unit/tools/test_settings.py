"""The settings of a local Airflow, and the part of the caller's environment that reaches it."""

from __future__ import annotations

import asyncio
import configparser
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from local_airflow import settings
from local_airflow.instance import Instance
from local_airflow.layout import Layout
from local_airflow.settings import SQLITE_PATIENCE_SECONDS, load_secrets, process_environment, write_settings


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(folder=tmp_path / "100% local")


def test_secrets_are_made_once_and_readable_by_the_owner_alone(layout: Layout) -> None:
    first = load_secrets(layout)
    assert load_secrets(layout) == first
    assert layout.secrets.stat().st_mode & 0o777 == 0o600
    assert len(set(first.values())) == 4


def test_two_instances_share_no_secret(tmp_path: Path) -> None:
    one, other = (load_secrets(Layout(folder=tmp_path / name)) for name in ("one", "other"))
    assert not set(one.values()) & set(other.values())


def test_what_is_written_is_what_airflow_reads(layout: Layout) -> None:
    instance = Instance(layout)
    write_settings(layout, instance.settings(1234), instance.password())
    read = configparser.ConfigParser()
    read.read(layout.home / "airflow.cfg")
    assert make_url(read["database"]["sql_alchemy_conn"]).database == f"{layout.folder}/airflow/airflow.db"
    assert read["api"]["port"] == "1234"
    assert json.loads(layout.passwords.read_text()) == {"admin": instance.password()}
    assert (layout.home / "airflow.cfg").stat().st_mode & 0o777 == 0o600


def test_what_an_instance_writes_is_its_owners_alone(layout: Layout) -> None:
    folders = (layout.home, layout.process_logs, layout.state)
    layout.home.mkdir(0o755, parents=True)
    layout.make_private()
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    written = [layout.database, layout.task_logs, layout.secrets, layout.passwords, layout.migrated]
    assert all(any(folder in path.parents for folder in folders) for path in written)


def test_airflow_waits_for_a_lock_of_its_sqlite_longer_than_sqlite_does(layout: Layout) -> None:
    """Both of its engines: the one of processes and tasks, and the one of asynchronous routes."""
    layout.home.mkdir(parents=True)
    url = make_url(Instance(layout).settings(1234)["database"]["sql_alchemy_conn"])
    engine, asynchronous = create_engine(url), create_async_engine(url.set(drivername="sqlite+aiosqlite"))

    async def asked() -> int:
        async with asynchronous.connect() as connection:
            waits = (await connection.exec_driver_sql("PRAGMA busy_timeout")).scalar_one()
        await asynchronous.dispose()
        return int(waits)

    with engine.connect() as connection:
        waits = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    engine.dispose()
    assert waits == asyncio.run(asked()) == SQLITE_PATIENCE_SECONDS * 1000


def test_it_listens_on_loopback_only(layout: Layout) -> None:
    assert Instance(layout).settings(1234)["api"]["host"] == "127.0.0.1"


def test_overrides_are_laid_over_the_settings(layout: Layout) -> None:
    settings = Instance(
        layout, overrides={"core": {"parallelism": "2"}, "registry_sync": {"max_shards": "1"}}
    ).settings(1)
    assert settings["core"]["parallelism"] == "2"
    assert settings["core"]["executor"] == "LocalExecutor"
    assert settings["registry_sync"]["trust_triggers"] == "True"
    assert settings["registry_sync"]["max_shards"] == "1"


@pytest.mark.parametrize(
    "name",
    ["AIRFLOW_CONFIG", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY_CMD"],
)
def test_nothing_points_it_at_another_installation(layout: Layout, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "of another installation")
    assert name not in Instance(layout).environment(1234)


def test_connections_and_other_settings_of_the_caller_reach_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_QUAY", "registry://")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", "s3://bucket")
    env = Instance(layout, env={"MORE": "1"}).environment(1234)
    assert env["AIRFLOW_CONN_QUAY"] == "registry://"
    assert env["AIRFLOW__REGISTRY_SYNC__BLOB_STORE"] == "s3://bucket"
    assert env["MORE"] == "1"


def test_no_proxy_is_used_for_the_instance_itself(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    env = Instance(layout).environment(1234)
    assert env["NO_PROXY"] == env["no_proxy"] == "example.org,127.0.0.1,localhost"


@pytest.mark.slow
def test_one_warning_is_silenced_commits_do_not_wait_for_the_disk_and_runs_not_for_the_next_second(
    layout: Layout,
) -> None:
    """The warning would stand in the log of every task; people must still see what of their DAGs is deprecated.

    In SQLite's log of changes (WAL) a commit that does not wait leaves a whole database after a loss of power, too.
    What was triggered a few milliseconds ago is not in the future, as Airflow's scheduler compares it.
    """
    instance = Instance(layout)
    write_settings(layout, instance.settings(1234), instance.password())
    program = (
        "import airflow, time, warnings\n"
        "from datetime import datetime, timezone\n"
        "from sqlalchemy import func, literal, select\n"
        "for text in ('GitWildMatchPattern (x) is deprecated', 'another one'):\n"
        "    warnings.warn_explicit(text, DeprecationWarning, 'x.py', 1, module='airflow.models')\n"
        "with airflow.settings.engine.connect() as connection:\n"
        "    for name in ('synchronous', 'journal_mode', 'foreign_keys'):\n"
        "        print(name, connection.exec_driver_sql(f'PRAGMA {name}').scalar())\n"
        "    for _ in range(3):\n"
        "        triggered_at = datetime.now(timezone.utc).replace(tzinfo=None)\n"
        "        time.sleep(0.01)\n"
        "        print('due', connection.scalar(select(literal(triggered_at) <= func.now())))\n"
        "    connection.exec_driver_sql('CREATE TABLE times (at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, id INTEGER)')\n"
        "    connection.exec_driver_sql('INSERT INTO times (id) VALUES (1)')\n"
        "    print('default', len(connection.exec_driver_sql('SELECT at FROM times').scalar()))\n"
    )
    environment = process_environment(layout, instance.settings(1234))
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "another one" in ran.stdout + ran.stderr
    assert "GitWildMatchPattern" not in ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-7:] == [
        *("synchronous 1", "journal_mode wal", "foreign_keys 1"),
        *["due True"] * 3,
        f"default {len('2026-11-30 21:54:25')}",
    ]


def test_local_settings_that_somebody_put_there_stay(layout: Layout) -> None:
    instance, own = Instance(layout), layout.home / "config" / "airflow_local_settings.py"
    own.parent.mkdir(parents=True)
    own.write_text("# mine\n")
    write_settings(layout, instance.settings(1234), instance.password())
    assert own.read_text() == "# mine\n"


def test_local_settings_of_an_earlier_release_are_replaced(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    instance, written = Instance(layout), layout.home / "config" / "airflow_local_settings.py"
    monkeypatch.setattr(settings, "_EARLIER_LOCAL_SETTINGS", {hashlib.sha256(b"# earlier\n").hexdigest()})
    written.parent.mkdir(parents=True)
    written.write_text("# earlier\n")
    write_settings(layout, instance.settings(1234), instance.password())
    assert written.read_text() == settings.LOCAL_SETTINGS
