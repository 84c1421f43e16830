"""The lower bound: twenty threads that fetch, hash and write the same bytes, with nothing else around.

No database, no resuming, no retries, no flush to the disk, no Airflow. What a sync takes beyond this is its own.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import requests

from benchmarks.syncs.contender import Source
from registry_sync.domain import media_types

T = TypeVar("T")
R = TypeVar("R")
THREADS = 20
CHUNK_BYTES = 1024 * 1024
_ACCEPT = {"Accept": ", ".join(media_types.ACCEPTED_MANIFEST_TYPES), "Accept-Encoding": "identity"}


class BareLoop:
    """One repository of one registry, written to ``folder``, which exists."""

    def __init__(self, source: Source, folder: Path) -> None:
        self._base = f"{source.url}/v2/{source.repository}"
        self._verify = True if source.ca_path is None else str(source.ca_path)
        self._folder = folder
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def first(self) -> None:
        """HEADs of all tags, GETs of all manifests and blobs."""
        with ThreadPoolExecutor(THREADS) as pool:
            waiting, seen = set(self._heads(pool)), set[str]()
            blobs: set[str] = set()
            while waiting:
                seen |= waiting
                documents = self._all(pool, self._manifest, waiting)
                waiting = {child["digest"] for document in documents for child in document.get("manifests", ())} - seen
                blobs |= {blob["digest"] for document in documents for blob in document.get("layers", ())}
                blobs |= {document["config"]["digest"] for document in documents if "config" in document}
            self._all(pool, self._blob, blobs)
        self._close()

    def unchanged(self) -> None:
        """HEADs of all tags."""
        with ThreadPoolExecutor(THREADS) as pool:
            self._heads(pool)
        self._close()

    def _heads(self, pool: ThreadPoolExecutor) -> list[str]:
        listing = self._session.get(f"{self._base}/tags/list", timeout=60).json()
        return self._all(pool, self._head, listing["tags"])

    def _head(self, tag: str) -> str:
        response = self._session.head(f"{self._base}/manifests/{tag}", headers=_ACCEPT, timeout=60)
        return response.headers["Docker-Content-Digest"]

    def _manifest(self, digest: str) -> dict[str, Any]:
        response = self._session.get(f"{self._base}/manifests/{digest}", headers=_ACCEPT, timeout=60)
        if f"sha256:{hashlib.sha256(response.content).hexdigest()}" != digest:
            raise RuntimeError(f"{digest} came with other bytes")
        document: dict[str, Any] = json.loads(response.content)
        return document

    def _blob(self, digest: str) -> None:
        hasher = hashlib.sha256()
        response = self._session.get(f"{self._base}/blobs/{digest}", headers=_ACCEPT, stream=True, timeout=60)
        with response, (self._folder / digest.partition(":")[2]).open("wb", buffering=0) as file:
            while chunk := response.raw.read(CHUNK_BYTES):
                hasher.update(chunk)
                file.write(chunk)
        if f"sha256:{hasher.hexdigest()}" != digest:
            raise RuntimeError(f"{digest} came with other bytes")

    @staticmethod
    def _all(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        return list(pool.map(work, items))

    @property
    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = requests.Session()
            session.trust_env = False
            session.verify = self._verify
            self._local.session = session
            self._sessions.append(session)
        return self._local.session  # type: ignore[no-any-return]

    def _close(self) -> None:
        for session in self._sessions:
            session.close()
        self._sessions.clear()
        self._local = threading.local()
