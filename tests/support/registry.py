"""A real registry for tests: Debian's ``docker-registry`` on a free loopback port.

It stores on the file system, allows deletion, and is used through the registry's own API. The requests it received are
read from its access log, which does not depend on the client.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import psutil
import requests

from registry_sync.domain.digests import Digest
from support.certificates import ServerCertificate
from support.listening import listening_ports

PROGRAM = "/usr/bin/docker-registry"
#: The one user of a registry that requires a password; the cheapest bcrypt cost keeps tests fast.
USERNAME, PASSWORD = "mirror", "correct horse battery"
_HTPASSWD = f"{USERNAME}:$2b$04$zceUS3kRfMBsAiljgFXAfe5GA61suvpUg03RIoaNDdHyI9FoSJK7i\n"

_LOG_LINE = re.compile(r'^\S+ - \S+ \[[^]]*\] "(?P<method>\S+) (?P<target>\S+) [^"]*" (?P<status>\d+) (?P<size>\d+)')
_LOG_AGENT = re.compile(r'"(?P<agent>[^"]*)"$')
_ROUTES = (
    ("tags", re.compile(r"/v2/(?P<repository>.+)/tags/list")),
    ("upload", re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<reference>.*)")),
    ("manifest", re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<reference>[^/]+)")),
    ("blob", re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<reference>[^/]+)")),
    ("ping", re.compile(r"/v2/")),
)


@dataclass(frozen=True)
class LoggedRequest:
    """One line of the access log. ``kind`` is tags, manifest, blob, upload, ping or other."""

    method: str
    kind: str
    repository: str
    reference: str
    status: int
    sent_bytes: int
    user_agent: str
    query: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, line: str) -> LoggedRequest | None:
        """The request of a line in Apache's combined format, or None when it is none."""
        found, agent = _LOG_LINE.match(line), _LOG_AGENT.search(line.rstrip())
        if found is None or agent is None:
            return None
        target = urlsplit(found["target"])
        kind, names = "other", {}
        for candidate, route in _ROUTES:
            if match := route.fullmatch(target.path):
                kind, names = candidate, match.groupdict()
                break
        return cls(
            method=found["method"],
            kind=kind,
            repository=names.get("repository", ""),
            reference=names.get("reference", ""),
            status=int(found["status"]),
            sent_bytes=int(found["size"]),
            user_agent=agent["agent"],
            query=parse_qs(target.query),
        )


@dataclass(frozen=True)
class RequestLog:
    """Requests in the order in which the registry finished them, and their counts."""

    requests: tuple[LoggedRequest, ...]

    def select(self, method: str | None = None, kind: str | None = None, **names: Any) -> list[LoggedRequest]:
        """Those of a method and kind; ``repository``, ``reference`` and ``status`` narrow further."""
        wanted = {"method": method, "kind": kind, **names}
        return [
            request
            for request in self.requests
            if all(value is None or getattr(request, name) == value for name, value in wanted.items())
        ]

    def count(self, method: str | None = None, kind: str | None = None, **names: Any) -> int:
        return len(self.select(method, kind, **names))

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """``(method, kind)`` to how many, such as ``("HEAD", "manifest")``; pings and all others included."""
        return Counter((request.method, request.kind) for request in self.requests)

    @property
    def tag_page_count(self) -> int:
        return self.count("GET", "tags")

    @property
    def manifest_head_count(self) -> int:
        return self.count("HEAD", "manifest")

    @property
    def manifest_get_count(self) -> int:
        return self.count("GET", "manifest")

    @property
    def blob_head_count(self) -> int:
        return self.count("HEAD", "blob")

    @property
    def blob_get_count(self) -> int:
        return self.count("GET", "blob")


class RegistryServer:
    """A registry that runs between ``with`` and its end, and keeps its port when it is started again.

    ``folder`` gets its configuration, logs and storage. ``basic_auth`` requires :data:`USERNAME` and
    :data:`PASSWORD`. ``certificate`` makes it speak https only. ``config`` is laid over the top level of its
    configuration, such as ``{"auth": {"token": {...}}}``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        basic_auth: bool = False,
        certificate: ServerCertificate | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.credentials = (USERNAME, PASSWORD) if basic_auth else None
        self.port = 0
        self._certificate = certificate
        self._config = dict(config or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "access.log"
        self._log_start = 0
        self._sentinel_count = 0
        self._sessions = threading.local()
        folder.mkdir(parents=True, exist_ok=True)

    # -- running -------------------------------------------------------------------------------------------------

    def __enter__(self) -> RegistryServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until it responds. A second start, after :meth:`stop`, uses the same port."""
        config = self.folder / "config.yml"
        config.write_text(json.dumps(self._configuration()))
        with self._log.open("ab") as log, (self.folder / "error.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [PROGRAM, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=errors, cwd=self.folder
            )
        deadline = time.monotonic() + 20
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"docker-registry did not start: {(self.folder / 'error.log').read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stops it; a stopped one stays stopped."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def processes(self) -> list[psutil.Process]:
        """The one that serves."""
        assert self._process is not None
        return [psutil.Process(self._process.pid)]

    def _configuration(self) -> dict[str, Any]:
        http: dict[str, Any] = {"addr": f"127.0.0.1:{self.port}", "secret": "only for tests"}
        if self._certificate is not None:
            http["tls"] = {"certificate": str(self._certificate.chain_path), "key": str(self._certificate.key_path)}
            if self._certificate.client_ca_path is not None:
                http["tls"]["clientcas"] = [str(self._certificate.client_ca_path)]
        configuration: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": http,
        }
        if self.credentials is not None:
            (self.folder / "htpasswd").write_text(_HTPASSWD)
            configuration["auth"] = {"htpasswd": {"realm": "tests", "path": str(self.folder / "htpasswd")}}
        return configuration | self._config

    def _is_ready(self) -> bool:
        assert self._process is not None
        listening = listening_ports(self._process.pid)
        self.port = min(listening, default=self.port)
        return bool(listening)

    # -- addresses -----------------------------------------------------------------------------------------------

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``, or https with a certificate."""
        return f"{'https' if self._certificate else 'http'}://{self.netloc}"

    @property
    def session(self) -> requests.Session:
        """A session of this thread, with the credentials and certificates that this registry wants."""
        if not hasattr(self._sessions, "session"):
            session = requests.Session()
            session.trust_env = False
            session.auth = self.credentials
            session.headers["User-Agent"] = "test-builder"
            if self._certificate is not None:
                session.verify = str(self._certificate.ca_path)
                session.cert = self._certificate.client_pair
            self._sessions.session = session
        return self._sessions.session  # type: ignore[no-any-return]

    def close_session(self) -> None:
        """Closes this thread's connections; a thread that pushed calls it before it ends."""
        if hasattr(self._sessions, "session"):
            self._sessions.session.close()
            del self._sessions.session

    # -- the requests it received ---------------------------------------------------------------------------------

    def log(self) -> RequestLog:
        """The requests since the start or :meth:`reset_counts`, without those of this class itself.

        The registry writes a line when it has served, which a client may notice first; so a request of our
        own is sent and its line waited for, and then a time of silence.
        """
        lines = self._settled_log()[self._log_start :].decode(errors="replace").splitlines()
        parsed = (LoggedRequest.parse(line) for line in lines)
        return RequestLog(
            tuple(request for request in parsed if request is not None and request.user_agent != "test-builder")
        )

    def reset_counts(self) -> None:
        """Forgets the requests so far."""
        self._log_start = len(self._settled_log())

    def _settled_log(self) -> bytes:
        if self._process is None:
            return self._log.read_bytes()
        self._sentinel_count += 1
        sentinel = f"sentinel={self._sentinel_count}"
        with contextlib.suppress(requests.RequestException):
            self.session.get(f"{self.url}/v2/?{sentinel}", timeout=10)
        deadline = time.monotonic() + 10
        while sentinel.encode() not in self._log.read_bytes() and time.monotonic() < deadline:
            time.sleep(0.005)
        size = -1
        while size != self._log.stat().st_size:
            size = self._log.stat().st_size
            time.sleep(0.05)
        return self._log.read_bytes()

    # -- filling and emptying over its API -----------------------------------------------------------------------

    def _ask(self, method: str, url: str, *, allow: Iterable[int] = (), **options: Any) -> requests.Response:
        response = self.session.request(method, urljoin(self.url, url), timeout=60, **options)
        if not response.ok and response.status_code not in allow:
            raise RuntimeError(f"{method} {url}: {response.status_code} {response.text[:500]}")
        return response

    def push_blob(self, repository: str, digest: str, data: bytes | Iterable[bytes]) -> None:
        """Uploads a blob in one piece (distribution specification, "Pushing a blob monolithically")."""
        location = self._ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
        separator = "&" if "?" in location else "?"
        self._ask(
            "PUT",
            f"{location}{separator}digest={digest}",
            data=data,
            headers={"Content-Type": "application/octet-stream"},
        )

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Whether the blob was mounted from another repository; when not, nothing is left open."""
        response = self._ask("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}")
        if response.status_code == 201:
            return True
        self._ask("DELETE", response.headers["Location"])
        return False

    def push_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> Digest:
        """Puts a manifest under a tag or its digest; its blobs and children must be there."""
        response = self._ask(
            "PUT", f"/v2/{repository}/manifests/{reference}", data=data, headers={"Content-Type": media_type}
        )
        return Digest(response.headers["Docker-Content-Digest"])

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Deletes a manifest and with it the tags that name it."""
        self._ask("DELETE", f"/v2/{repository}/manifests/{digest}")

    def delete_blob(self, repository: str, digest: str) -> None:
        """Takes a blob out of a repository."""
        self._ask("DELETE", f"/v2/{repository}/blobs/{digest}")

    def delete_tag(self, repository: str, tag: str) -> None:
        """Deletes a tag and leaves its manifest. This registry has no request for that, so its storage is changed."""
        shutil.rmtree(self.repository_storage(repository) / "_manifests" / "tags" / tag)

    def tags(self, repository: str) -> list[str]:
        """The tags it lists, sorted; none for a repository it does not know."""
        response = self._ask("GET", f"/v2/{repository}/tags/list", allow=(404,))
        return sorted(response.json().get("tags") or []) if response.ok else []

    # -- its storage ---------------------------------------------------------------------------------------------

    def repository_storage(self, repository: str) -> Path:
        """The folder in which it keeps a repository's links."""
        return self.storage / "docker/registry/v2/repositories" / repository

    def blob_path(self, digest: Digest) -> Path:
        """The file in which it keeps the bytes of a blob or manifest."""
        return (
            self.storage / "docker/registry/v2/blobs" / digest.algorithm / digest.encoded[:2] / digest.encoded / "data"
        )
