"""Pulp with its container plugin, where it is installed in ``.local/pulp/server``, on the same PostgreSQL as Airflow.

One worker and one process for the API, on loopback, with local files and without a cache: what a sync needs.
"""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import requests
from cryptography.fernet import Fernet

from benchmarks.results import TookTooLong, Usage
from benchmarks.syncs.contender import PASSES, Source
from local_airflow.ports import free_port
from support.images import RepositoryContent
from support.postgres import Postgres

PROGRAMS = Path(".local/pulp/server/bin")
INSTALL = "python3 -m venv .local/pulp/server && .local/pulp/server/bin/pip install pulp-container"
_PASSWORD = "only for measurements"
_POLL_SECONDS = 0.05
_START_SECONDS = 120
_FINAL = ("completed", "failed", "canceled", "skipped")
_SETTINGS = """
DATABASES = {{
    "default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "pulp", "USER": "tests", "HOST": "{host}"}}
}}
SECRET_KEY = "only for measurements"
DB_ENCRYPTION_KEY = "{folder}/key"
CONTENT_ORIGIN = "http://127.0.0.1:9"
DEPLOY_ROOT = "{folder}"
MEDIA_ROOT = "{folder}/media"
STATIC_ROOT = "{folder}/assets"
WORKING_DIRECTORY = FILE_UPLOAD_TEMP_DIR = "{folder}/work"
TOKEN_AUTH_DISABLED = True
ANALYTICS = CACHE_ENABLED = False
"""


def is_installed() -> bool:
    return (PROGRAMS / "pulpcore-api").exists()


class PulpServer:
    """Pulp between ``with`` and its end; ``folder`` gets its files."""

    def __init__(self, folder: Path, server: Postgres) -> None:
        self._folder, self._server = folder, server
        self._closing = ExitStack()
        self._url = f"http://127.0.0.1:{free_port()}"
        self._session = requests.Session()
        self._session.auth, self._session.trust_env = ("admin", _PASSWORD), False

    def __enter__(self) -> PulpServer:
        for name in ("media", "assets", "work"):
            (self._folder / name).mkdir(parents=True)
        (self._folder / "key").write_bytes(Fernet.generate_key())
        self._server.make_database("pulp")
        settings = self._folder / "settings.py"
        settings.write_text(_SETTINGS.format(folder=self._folder, host=self._server.socket_folder))
        path = os.pathsep.join([str(PROGRAMS.absolute()), os.environ["PATH"]])
        env = {**os.environ, "PULP_SETTINGS": str(settings), "PATH": path, "PYTHONPATH": ""}
        for command in (["migrate", "--noinput"], ["reset-admin-password", "--password", _PASSWORD]):
            subprocess.run(["pulpcore-manager", *command], env=env, check=True, capture_output=True)
        address = self._url.partition("//")[2]
        with self._closing as closing:
            closing.callback(self._session.close)
            for command in (["pulpcore-api", "--bind", address, "--workers", "1"], ["pulpcore-worker"]):
                closing.enter_context(_running(command, env, self._folder / f"{command[0]}.log"))
            self._await_start()
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _await_start(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                if self.request("GET", "/pulp/api/v3/status/")["online_workers"]:
                    return
            except (requests.RequestException, RuntimeError):
                pass
            time.sleep(0.5)
        logs = "".join(path.read_text(errors="replace")[-1000:] for path in self._folder.glob("*.log"))
        raise RuntimeError(f"Pulp did not start: {logs}")

    def request(self, method: str, href: str, json: Mapping[str, Any] | None = None) -> Any:
        """The decoded response; None without one. Raises :class:`RuntimeError` for a refusal."""
        response = self._session.request(method, f"{self._url}{href}", json=json, timeout=60)
        if not response.ok:
            raise RuntimeError(f"Pulp: {response.status_code} {response.text[:300]}")
        return response.json() if response.content else None

    def every(self, href: str) -> list[dict[str, Any]]:
        """All entries of a list."""
        found: list[dict[str, Any]] = []
        separator = "&" if "?" in href else "?"
        while len(found) < (page := self.request("GET", f"{href}{separator}limit=1000&offset={len(found)}"))["count"]:
            found += page["results"]
        return found

    def finish(self, response: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """The task of a response, when it has ended well. Raises :class:`RuntimeError`."""
        deadline = time.monotonic() + timeout_seconds
        while (task := self.request("GET", response["task"]))["state"] not in _FINAL:
            if time.monotonic() > deadline:
                self.request("PATCH", response["task"], {"state": "canceled"})
                raise TookTooLong(timeout_seconds)
            time.sleep(_POLL_SECONDS)
        if task["state"] != "completed":
            raise RuntimeError(f"Pulp: {task['error']}")
        return dict(task)


@contextmanager
def _running(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, env=env, stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


class PulpSync:
    """Syncs of one repository by Pulp, from the request to the end of its task by Pulp's own clock."""

    name = "Pulp"
    passes = PASSES
    _kind = "/pulp/api/v3/{}/container/container/"

    def __init__(self, server: PulpServer, source: Source) -> None:
        self._server, self._source = server, source
        self._remote = self._repository = ""

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    def empty(self) -> None:
        """Removes repository and remote, and everything that was in it; makes both anew."""
        server, minute = self._server, 60
        for kind in ("repositories", "remotes"):
            for one in server.every(self._kind.format(kind)):
                server.finish(server.request("DELETE", one["pulp_href"]), minute)
        server.finish(
            server.request("POST", "/pulp/api/v3/orphans/cleanup/", {"orphan_protection_time": 0}), 10 * minute
        )
        remote = {
            "name": "benchmark",
            "url": self._source.url,
            "upstream_name": self._source.repository,
            "policy": "immediate",
            "download_concurrency": 20,
        }
        if self._source.ca_path is not None:
            remote["ca_cert"] = self._source.ca_path.read_text()
        self._remote = server.request("POST", self._kind.format("remotes"), remote)["pulp_href"]
        self._repository = server.request("POST", self._kind.format("repositories"), {"name": "benchmark"})["pulp_href"]

    def sync(self, which: str, timeout_seconds: float) -> Usage:
        began = time.time()
        started = self._server.request("POST", f"{self._repository}sync/", {"remote": self._remote, "mirror": True})
        task = self._server.finish(started, timeout_seconds)
        ended = dt.datetime.fromisoformat(task["finished_at"].replace("Z", "+00:00")).timestamp()
        return Usage(ended - began)

    def check(self, content: RepositoryContent) -> None:
        digests = {one["pulp_href"]: one["digest"] for one in self._units("manifests")}
        tags = {one["name"]: digests[one["tagged_manifest"]] for one in self._units("tags")}
        blobs = {one["digest"] for one in self._units("blobs")}
        reached = content.closure(content.tags)
        if {name: str(digest) for name, digest in content.tags.items()}.items() - tags.items():
            raise RuntimeError("the version has other tags")
        if set(map(str, reached.manifests)) - set(digests.values()) or set(map(str, reached.blobs)) - blobs:
            raise RuntimeError("the version lacks manifests or blobs")

    def _units(self, kind: str) -> list[dict[str, Any]]:
        """Those of the latest version. Pulp itself has held the bytes against their digests."""
        version = self._server.request("GET", self._repository)["latest_version_href"]
        return self._server.every(f"/pulp/api/v3/content/container/{kind}/?repository_version={version}")
