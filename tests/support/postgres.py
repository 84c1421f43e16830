"""A PostgreSQL of the tests' own: made in a temporary folder, stopped and removed at the end.

It listens on a unix socket in its folder and on no network. PostgreSQL refuses to run as root, so as root its
programs run as the account that Debian's package makes, or as no one where there is none.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

_ACCOUNTS = ("postgres", "nobody")
#: Durability is of no use to a database that lives as long as the tests.
_SETTINGS = (
    "fsync=off",
    "autovacuum=off",  # whose statistics change the plans of queries in the middle of a test
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "shared_buffers=32MB",
    "listen_addresses=",
    "max_connections=60",
    "jit=off",  # to compile a query takes longer than any of a test's
)
_INITDB = ("-A", "trust", "-E", "UTF8", "--no-sync", "--wal-segsize=1")


@dataclass(frozen=True)
class Postgres:
    """A server, running until it is stopped."""

    socket_folder: Path
    programs: Path
    has_autovacuum: bool = False

    def start(self) -> None:
        """Starts it; when this returns, it takes connections."""
        vacuum = ["autovacuum=on"] if self.has_autovacuum else []
        settings = (*_SETTINGS, f"unix_socket_directories={self.socket_folder}", *vacuum)
        options = " ".join(f"-c {setting}" for setting in settings)
        self._control("-l", self.socket_folder / "log", "-o", options, "-w", "-t", "60", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stops it and breaks every connection; ``fast`` keeps all that was committed."""
        self._control("-m", mode, "-w", "stop")

    def _control(self, *arguments: object) -> None:
        _run(self.programs / "pg_ctl", "-D", self.socket_folder / "data", *arguments)

    def make_database(self, name: str, template: str = "template1") -> str:
        """The URL of a new database: an empty one, or a copy of ``template``, which must have no connections."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            # Its files are copied as they are; what PostgreSQL does otherwise takes four times as long.
            strategy = "STRATEGY FILE_COPY" if connection.info.server_version >= 15_00_00 else ""
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {strategy}')
        return f"postgresql://tests@/{name}?host={quote(str(self.socket_folder), safe='')}"

    def drop_database(self, name: str) -> None:
        """Removes it, with its remaining connections."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def drop_tablespace(self, name: str) -> None:
        """Removes a tablespace in which nothing is any more."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f'DROP TABLESPACE "{name}"')

    def _conninfo(self, name: str) -> str:
        return f"host={self.socket_folder} user=tests dbname={name}"


@contextmanager
def running_postgres(*, has_autovacuum: bool = False) -> Iterator[Postgres]:
    """A server for the time of the block; ``has_autovacuum`` keeps statistics, as one that is used does."""
    programs = _programs()
    # A short name: the path of a unix socket has at most 107 characters.
    place = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir=place if len(place) < 60 else "/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, _account().pw_uid, _account().pw_gid)
        _run(programs / "initdb", "-D", folder / "data", "-U", "tests", *_INITDB)
        server = Postgres(folder, programs, has_autovacuum)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    if elsewhere is None:
        raise RuntimeError("PostgreSQL is not installed: no initdb; on Debian: apt-get install postgresql")
    return Path(elsewhere).parent


def _account() -> pwd.struct_passwd:
    accounts = {account.pw_name: account for account in pwd.getpwall()}
    found = [accounts[name] for name in _ACCOUNTS if name in accounts]
    if not found:
        raise RuntimeError("PostgreSQL does not run as root, and there is no other account to run it as")
    return found[0]


def _run(*command: object) -> None:
    account = _account() if os.geteuid() == 0 else None
    result = subprocess.run(
        [str(part) for part in command],
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if result.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {result.stderr.decode(errors='replace')[-2000:]}")
