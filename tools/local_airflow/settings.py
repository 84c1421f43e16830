"""Airflow's settings for a local instance, and the secrets in them.

The settings suit short runs on a small machine; comments give their effects.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from local_airflow.layout import Layout
from local_airflow.ports import LOOPBACK

USERNAME = "admin"
#: How long Airflow waits for a lock of its SQLite. SQLite's five seconds lead to 500 when several tasks start at once.
#: Not longer, because Airflow 3.3.2 notes a request of its REST API (``action_logging``) on the event loop of the API
#: server: when a task that starts has the lock then, its commit waits for that loop, and all stands still until the
#: patience ends.
SQLITE_PATIENCE_SECONDS = 10

#: The code that Airflow runs after its set-up of warnings. ``PYTHONWARNINGS`` would disable all of that set-up.
LOCAL_SETTINGS = '''\
"""Silences the warning about Airflow's own use of a renamed class in the log of every task.

And commits to Airflow's SQLite do not wait for the disk, dozens of times in each run: what survives a crash of Airflow
survives all the same, and after a loss of power the last seconds may be missing.

And that SQLite tells the time to the millisecond. Its CURRENT_TIMESTAMP has whole seconds, so that Airflow's scheduler
took a run for one of the future, and did not start it, until the second in which it was triggered was over.
"""

import warnings

from sqlalchemy import create_engine, event

__all__ = ["create_metadata_engine"]
warnings.filterwarnings("ignore", message="GitWildMatchPattern ", category=DeprecationWarning)


def create_metadata_engine(sql_alchemy_conn, *, engine_args, connect_args):
    engine = create_engine(sql_alchemy_conn, connect_args=connect_args, **engine_args, future=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _without_waiting)
        event.listen(engine, "before_cursor_execute", _to_the_millisecond, retval=True)
    return engine


def _without_waiting(connection, _record):
    connection.execute("PRAGMA synchronous = NORMAL")


def _to_the_millisecond(_connection, _cursor, statement, parameters, _context, _executemany):
    if statement.startswith("SELECT"):  # not what creates tables, whose defaults must stay as migrations wrote them
        statement = statement.replace("CURRENT_TIMESTAMP", "strftime('%Y-%m-%d %H:%M:%f', 'now')")
    return statement, parameters
'''
#: SHA-256 of the text that earlier releases wrote, which is replaced where nobody has changed it.
_EARLIER_LOCAL_SETTINGS = frozenset({"d08f49865b9c2ce466fd2706630c5486e7beb387d0dadd25d4a4ba65f8b5bc08"})

Settings = dict[str, dict[str, str]]


def load_secrets(layout: Layout) -> dict[str, str]:
    """The secrets of the instance; created by the first call and kept, readable by the owner alone."""
    if layout.secrets.exists():
        return dict(json.loads(layout.secrets.read_text()))
    made = {
        "admin_password": secrets.token_urlsafe(12),
        "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "jwt_secret": secrets.token_urlsafe(64),
        "secret_key": secrets.token_urlsafe(32),
    }
    write_private(layout.secrets, json.dumps(made))
    return made


def write_private(path: Path, text: str) -> None:
    """Replaces a file, readable by the owner alone, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def airflow_settings(layout: Layout, port: int, kept: Mapping[str, str]) -> Settings:
    """Sections and options for an instance whose API server listens on ``port``."""
    url = f"http://{LOOPBACK}:{port}"
    return {
        "core": {
            "dags_folder": str(layout.dags),
            "plugins_folder": str(layout.plugins),
            "load_examples": "False",
            "executor": "LocalExecutor",
            "parallelism": "8",  # slots, each a process; more have no benefit on two cores
            "dags_are_paused_at_creation": "False",
            "test_connection": "Enabled",
            "fernet_key": kept["fernet_key"],
            "execution_api_server_url": f"{url}/execution/",
            "simple_auth_manager_users": f"{USERNAME}:admin",
            "simple_auth_manager_passwords_file": str(layout.passwords),
        },
        "database": {
            "sql_alchemy_conn": f"sqlite:///{layout.database}?timeout={SQLITE_PATIENCE_SECONDS}",
            "check_migrations": "False",  # the start migrates the database while the API server starts
        },
        "api": {
            "host": LOOPBACK,
            "port": str(port),
            "base_url": url,
            "workers": "1",
            "secret_key": kept["secret_key"],
        },
        "api_auth": {"jwt_secret": kept["jwt_secret"]},
        "scheduler": {"scheduler_idle_sleep_time": "0.1"},  # a chain of four tasks in 1.5 s instead of 5
        "workers": {"min_heartbeat_interval": "1"},  # a finished task frees its slot up to 5 s earlier
        "dag_processor": {
            # A changed DAG file is parsed at once all the same; others again for what they read, as mirrors are.
            "min_file_process_interval": "30",
            "refresh_interval": "5",  # a new DAG file is parsed after this many seconds
            "bundle_refresh_check_interval": "1",
        },
        "openlineage": {"execute_in_thread": "True"},  # where its provider is installed: no fork per task and event
        "logging": {"base_log_folder": str(layout.task_logs)},
        "registry_sync": {
            "trust_triggers": "True",  # the only user who may trigger is the owner
            "pull_login_url": url,  # who may log in to Airflow may pull
        },
        "usage_data_collection": {"enabled": "False"},
    }


def write_settings(layout: Layout, settings: Mapping[str, Mapping[str, str]], password: str) -> None:
    """Writes ``airflow.cfg``, the file of passwords and Airflow's local settings, unless they are somebody's own."""
    lines = []
    for section, options in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value.replace('%', '%%')}" for name, value in options.items()]
        lines.append("")
    write_private(layout.home / "airflow.cfg", "\n".join(lines))
    write_private(layout.passwords, json.dumps({USERNAME: password}) + "\n")
    local_settings = layout.home / "config" / "airflow_local_settings.py"
    if not local_settings.exists() or _sha256(local_settings) in _EARLIER_LOCAL_SETTINGS:
        write_private(local_settings, LOCAL_SETTINGS)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def process_environment(layout: Layout, settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The environment of the instance's processes.

    It is the caller's, including connections and variables for Airflow, without the variables that refer to another
    installation.
    """
    replaced = {f"AIRFLOW__{section}__{name}".upper() for section, options in settings.items() for name in options}
    replaced |= {f"{name}{suffix}" for name in replaced for suffix in ("_CMD", "_SECRET")}
    replaced |= {"AIRFLOW_HOME", "AIRFLOW_CONFIG"}
    inherited = {name: value for name, value in os.environ.items() if name not in replaced}
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY", os.environ.get("no_proxy")), LOOPBACK, "localhost"]))
    return {
        **inherited,
        "AIRFLOW_HOME": str(layout.home),
        "PATH": os.pathsep.join([str(layout.python.parent), os.environ.get("PATH", os.defpath)]),
        "PYTHONPATH": layout.search_path(),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": direct,  # tasks use the API server, which no proxy can reach
        "no_proxy": direct,
    }
