"""What all tests rely on: no test reads or writes the Airflow of the person who runs it."""

from __future__ import annotations

import base64
import ctypes
import fcntl
import functools
import gc
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from sqlalchemy import Engine, event

from support import (
    branch_coverage,
    examples,
    scheduling,
    sent_reports,
    temporary_files,
    tls_sockets,
)

if TYPE_CHECKING:
    from support.airflow_instance import AirflowInstance
    from support.composed import Composed
    from support.dag_runs import InProcessSync
    from support.recipients import MailServer, Webhook
    from support.registry import RegistryServer

CHECKOUT = Path(__file__).parents[1]
#: Before anything of the package is imported; None when nobody asked for it.
_coverage = branch_coverage.start_if_wanted()
temporary_files.write_to_memory()
# Airflow fixes its home when it is first imported, so this stands before every import of it.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="registry-sync-tests-"))
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(CHECKOUT / ".local/cache/hypothesis"))
os.environ |= {
    "AIRFLOW_HOME": str(AIRFLOW_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # Airflow reads the key once in a process: whoever is the first, it is there, and the same for all.
    "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
}
# What tests start need not compile this project each time anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@event.listens_for(Engine, "connect")
def _leave_writing_to_the_system(connection: Any, _record: object) -> None:
    """Nobody's SQLite waits for the disk: what is written outlives its process all the same, kill or no kill."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


tls_sockets.close_those_reset()


def _share_arenas() -> None:
    """Threads share two arenas of glibc's memory: each of hundreds keeps what it freed to itself otherwise."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 2)


_M_ARENA_MAX = -8  # malloc.h
_share_arenas()
#: A process of the tests that holds more than this gives back, at the end of a file, what glibc keeps of freed memory.
_KEPT_BYTES = 400 * 1024 * 1024


def _give_back_memory() -> None:
    """Tens of megabytes of each file's, which glibc keeps for what may be allocated next."""
    held_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    if held_pages * os.sysconf("SC_PAGE_SIZE") > _KEPT_BYTES:
        ctypes.CDLL(None).malloc_trim(0)


settings.register_profile("any machine", **examples.examples())
settings.load_profile("any machine")

#: The Airflows that tests share, while they run, by what :func:`support.scheduling.shared_by` says of the tests' files.
_shared_airflows: dict[str, AirflowInstance] = {}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Tests run without pytest's cache, too, which is what knows the name of its folder otherwise."""
    if not pluginmanager.has_plugin("cacheprovider"):
        parser.addini("cache_dir", "Of no meaning without the cache")


def pytest_configure(config: pytest.Config) -> None:
    if _coverage is not None:
        config.pluginmanager.register(_coverage)
    sent_reports.send_less(config)


def _path(item: pytest.Item) -> str:
    return _relative(item.path)


@functools.cache
def _relative(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


gc.disable()  # until all is collected: next to nothing that is imported becomes garbage
#: New objects, and searches of one generation before one of the next, before garbage is searched for.
_SEARCHED_AFTER = (10_000, 10, 10)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is imported stays to the end: no search for garbage goes through it again."""
    gc.collect()
    _keep_what_was_searched()
    gc.set_threshold(*_SEARCHED_AFTER)
    gc.enable()


def _keep_what_was_searched() -> None:
    """What a whole search left, such as an Airflow that a test has imported, is not gone through by the next one.

    Between tests, because who searches in one, as Hypothesis does, may ask then what refers to an object.
    """
    count = gc.get_stats()[2]["collections"]
    if count != _searched.get("count"):
        _searched["count"] = count
        gc.freeze()


_searched: dict[str, int] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sorts the suites; within one the order stays."""
    in_processes = hasattr(config, "workerinput")
    items.sort(key=lambda item: scheduling.place(_path(item), in_processes=in_processes))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several processes share the files out so that one Airflow is enough for all tests that can share one."""
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # the order is the one that the tests are sorted into
    return scheduling.SharedAirflowScheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(location: tuple[str, int | None, str]) -> None:
    """A process of the tests holds what its files need one after the other, and not all of it together."""
    path = location[0]
    if path != _finished.get("path", path) and hasattr(ctypes.CDLL(None), "malloc_trim"):
        _give_back_memory()
    _finished["path"] = path


_finished: dict[str, str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Drops what a test has printed and logged once it has passed, unless ``-rP`` or ``-rA`` shows it.

    pytest keeps it to the end, and with several processes sends it to another one, which keeps it too: 40 MB of one.
    """
    report = yield
    if not {"P", "A"}.intersection(item.config.option.reportchars):
        if report.passed:
            report.sections.clear()
        if report.when == "teardown":
            item._report_sections.clear()
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Stops a shared Airflow after its last test: one that idles takes a fifth of a core and most of the memory."""
    yield
    _keep_what_was_searched()
    sharing = scheduling.shared_by(_path(item))
    if sharing in _shared_airflows and (nextitem is None or scheduling.shared_by(_path(nextitem)) != sharing):
        _shared_airflows.pop(sharing).instance.stop(grace_seconds=0)


def pytest_unconfigure() -> None:
    """Removes the home that the tests shared."""
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a migrated database of Airflow, for instances to start with; one for all processes."""
    from support.airflow_instance import make_database

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which the processes share
    with (folder / "database.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return make_database(folder / "database")


@pytest.fixture(scope="session")
def _home_with_database(airflow_database: Path) -> Path:
    """The shared home with tables, also where a test looked for a connection before and left an empty database open."""
    from airflow import settings

    settings.dispose_orm(do_log=False)
    for left in AIRFLOW_HOME.glob("airflow.db*"):
        left.unlink()
    shutil.copy(airflow_database / "airflow.db", AIRFLOW_HOME / "airflow.db")
    settings.configure_orm()
    return AIRFLOW_HOME


@pytest.fixture
def sync_in_process(_home_with_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcessSync:
    """Runs DAGs in the process of the test, on an empty database and blob store of registry-sync."""
    from support.dag_runs import InProcessSync
    from support.ready_databases import ready_database

    ready_database(tmp_path / "registry_sync.db").close()
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path / 'registry_sync.db'}")
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__BLOB_STORE", (tmp_path / "blobs").as_uri())
    monkeypatch.setenv("AIRFLOW__REGISTRY_SYNC__TRUST_TRIGGERS", "True")  # as `make up` has it
    return InProcessSync()


#: The name under which the shared upstream holds the documented example.
UPSTREAM_NAME = "library/hello-world"


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with ``library/hello-world``: 8 tags, 21 manifests, 31 blobs. Tests read it and change nothing."""
    from support.filling import push
    from support.registry import RegistryServer
    from support.shapes import documented_example

    with RegistryServer(tmp_path_factory.mktemp("upstream")) as server:
        push(server, UPSTREAM_NAME, documented_example())
        yield server


@pytest.fixture(scope="session")
def recipients() -> Iterator[tuple[MailServer, Webhook]]:
    """A mail server and a webhook that ``airflow`` has as the connections ``mail`` and ``hook``; a test serves them."""
    from support.recipients import MailServer, Webhook

    made = MailServer(), Webhook()
    yield made
    for server in made:
        server.server_close()


@pytest.fixture(scope="session")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, airflow_database: Path, recipients: tuple[MailServer, Webhook]
) -> Iterator[AirflowInstance]:
    """A running Airflow with this checkout's DAGs; tests tell themselves apart by the repositories they sync into.

    Who asks for it is named in :data:`support.scheduling.SHARING_AIRFLOW`.
    """
    from support import declared_fleet, grouped_dags, waiting_dags
    from support.airflow_instance import AirflowInstance
    from support.recipients import connections

    folder = tmp_path_factory.mktemp("airflow")
    dags = folder / "dags"
    shutil.copytree(CHECKOUT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    (dags / "waiting.py").write_text(waiting_dags.CODE)
    (dags / "grouped.py").write_text(grouped_dags.CODE)
    fleet = declared_fleet.write(folder / "fleet")
    settings = {"registry_sync": {"min_shard_mib": "128", "fleet_path": str(fleet)}}
    env = {"GREETING": "hello", **connections(*recipients)}
    with AirflowInstance(folder, dags=dags, database=airflow_database, settings=settings, env=env) as instance:
        _shared_airflows[scheduling.SHARED] = instance
        yield instance


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """A running Airflow as the compose file sets it up, with the example DAGs of the documentation.

    Who asks for it is named in :data:`support.scheduling.SHARING_COMPOSED`.
    """
    from support.composed import composed_airflow

    with composed_airflow(tmp_path_factory.mktemp("composed")) as running:
        _shared_airflows[scheduling.COMPOSED] = running.airflow
        yield running
