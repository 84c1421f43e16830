"""The registry API for container clients, read only, as one ASGI app (OCI distribution specification 1.1).

One request looks up one version, and everything that it is answered with is of that version. Manifests go out byte
for byte as they came, whatever the client accepts: another form would have another digest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, quote, urlencode

from registry_sync.blobs.local import LocalBlobStore
from registry_sync.blobs.store import BlobStore
from registry_sync.db.database import Database
from registry_sync.db.pulls import PublishedBlob, Referrer
from registry_sync.domain.digests import Digest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.domain.serving import PublishedVersion, PullRecord
from registry_sync.errors import BlobMissing, InvalidReference, RegistrySyncError
from registry_sync.serve.blob_bodies import BlobBody, BodyCut, Receive, Send
from registry_sync.serve.delivery import Delivery
from registry_sync.serve.file_sender import FileSender
from registry_sync.serve.logins import Access, PullLogin
from registry_sync.serve.lookups import Lookups
from registry_sync.serve.on_demand import BlobFetch, OnDemand
from registry_sync.serve.replies import PullError, Reply, Scope, is_unchanged, requested_range, unavailable
from registry_sync.users.airflow_logins import UserLogin
from registry_sync.users.login_limits import HOST, Network, client_address

if TYPE_CHECKING:
    from registry_sync.hooks.pull_clients import OpenPullClient

T = TypeVar("T")
_log = logging.getLogger(__name__)
#: The last marker counts: a repository may be called ``team/manifests/tools`` (see the grammar of names).
_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<last>[^/]+)")
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_MOST_TAGS = 10_000
_MOST_REFERRERS = 1_000
#: How long a request waits for a lock or a connection of the database, in seconds.
PATIENCE_SECONDS = 5.0
_REFERRERS_AT_ONCE = 100
#: Clients need not read a larger index; the annotations of one entry may be of any size.
_MOST_INDEX_BYTES = 4 * 1024 * 1024 - 256
_MOST_BASE_PATHS = 1_000
_MOST_DIGITS = 18
#: A stored blob of so many bytes is read as it is opened.
_SMALL_BYTES = 64 * 1024
#: A digest never changes its meaning; a tag may at any time.
_FOREVER, _NOT_AT_ALL = "private, max-age=31536000, immutable", "no-cache"


@dataclass
class PullRequest:
    """One request as the handlers see it; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    origin: str
    address: str = ""
    login: PullLogin | None = field(default=None)
    kind: str = "other"
    name: str | None = None
    reference: str | None = None
    version: PublishedVersion | None = None

    @classmethod
    def of(cls, scope: Scope, trusted_proxies: Sequence[Network] = ()) -> PullRequest:
        """What stands in an ASGI scope; ``X-Forwarded-For`` counts when it comes from one of the proxies."""
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            headers[key] = f"{headers[key]}, {value.decode('latin-1')}" if key in headers else value.decode("latin-1")
        # Both only choose the address of a challenge, which goes to the client that could have sent them.
        host = headers.get("host", "")
        if not HOST.fullmatch(host):
            host = ":".join(map(str, scope.get("server") or ("localhost",)))
        forwarded = headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
        scheme = forwarded if forwarded in ("http", "https") else scope.get("scheme", "http")
        text = scope.get("query_string")
        query = parse_qs(text.decode("latin-1"), keep_blank_values=True) if text else {}
        peer = (scope.get("client") or ("", 0))[0]
        address = client_address(peer, headers.get("x-forwarded-for"), trusted_proxies)
        return cls(scope["method"], scope["path"], query, headers, f"{scheme}://{host}", address)

    def one(self, name: str) -> str | None:
        """The first value of a parameter of the query; None when it is absent."""
        return self.query.get(name, [None])[0]

    def record(self, reply: Reply, sent_bytes: int, seconds: float) -> PullRecord:
        """What is kept of it after its reply."""
        is_by_tag = self.kind == "manifests" and self.reference is not None and ":" not in self.reference
        return PullRecord(
            at=utc_now(),
            method=self.method,
            kind=self.kind,
            status=reply.status,
            seconds=seconds,
            sent_bytes=sent_bytes,
            path=self.path,
            name=self.name,
            reference=self.reference,
            digest=reply.headers.get("Docker-Content-Digest"),
            tag=self.reference if is_by_tag else None,
            code=reply.code,
            repository_id=None if self.version is None else self.version.repository_id,
            account="" if self.login is None else self.login.account,
            address=self.address,
            user_agent=self.headers.get("user-agent", ""),
        )


class PullApp:
    """Serves what distributions of ``database`` publish, with bytes of ``store``.

    ``users`` checks the logins of Airflow's users, without it only robots log in. ``open_client`` opens the registry of
    a remote, for blobs that the store lacks; None serves stored blobs alone. ``files`` sends large ones that are stored
    in a folder, None where the server has to. ``observers`` are given each request after its reply, and
    ``count_on_demand`` what :class:`OnDemand` counts; they are quick, and raise nothing. ``closing`` is called in turn
    when the server ends.
    """

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        *,
        service: str = "registry-sync",
        users: UserLogin | None = None,
        trusted_proxies: Sequence[Network] = (),
        delivery: Delivery | None = None,
        open_client: OpenPullClient | None = None,
        files: FileSender | None = None,
        observers: Sequence[Callable[[PullRecord], None]] = (),
        count_on_demand: Callable[[str, int], None] = lambda _event, _amount: None,
        closing: Sequence[Callable[[], None]] = (),
    ) -> None:
        self._store = store
        self._delivery = delivery or Delivery(store)
        self._on_demand = None if open_client is None else OnDemand(database, store, open_client, count=count_on_demand)
        self._lookups = Lookups(database)
        self._access = Access(database, self._lookups, service, users)
        self._trusted_proxies = trusted_proxies
        self._files = files
        self._observers = observers
        self._closing = closing

    def close(self) -> None:
        """Ends its threads."""
        self._lookups.close()
        if self._files is not None:
            self._files.close()
        if self._on_demand is not None:
            self._on_demand.close()
        for close in self._closing:
            close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI calls it."""
        if scope["type"] == "lifespan":
            await _live(receive, send, self.close)
            return
        started = time.perf_counter()
        request = PullRequest.of(scope, self._trusted_proxies)
        try:
            reply = await self._reply(request)
        except PullError as refused:
            reply = refused.reply()
        except RegistrySyncError as problem:
            _log.error("%s %s: %s", request.method, request.path, problem)
            reply = unavailable("the server cannot answer now; try again", 5).reply()
        sent_bytes = 0
        try:
            sent_bytes = await reply.send(scope, receive, send, self._files)
        except BodyCut as problem:
            _log.error("%s %s: %s", request.method, request.path, problem)
            raise
        finally:
            if self._observers:
                record = request.record(reply, sent_bytes, time.perf_counter() - started)
                for observe in self._observers:
                    observe(record)

    async def _reply(self, request: PullRequest) -> Reply:
        if request.method not in ("GET", "HEAD"):
            raise PullError(405, "UNSUPPORTED", "this registry is read only", {"Allow": "GET, HEAD"})
        if request.path in ("/v2/token", "/v2/token/"):
            request.kind = "token"
            scopes = request.query.get("scope", [])
            document = await self._access.token(request.headers, scopes, request.address)
            return _json(document, {"Cache-Control": "no-store"})
        request.login = await self._login(request)
        if request.path in ("/v2/", "/v2"):
            request.kind = "root"
            if request.login is None:
                raise self._access.challenge(request.origin, None)
            return _json({})
        if request.path == "/v2/_catalog":
            request.kind = "catalog"
            return await self._catalog(request)
        found = _ROUTE.fullmatch(request.path)
        if found is None or (found["kind"] == "tags" and found["last"] != "list"):
            raise PullError(404, "NOT_FOUND", "no such page of the registry API")
        request.kind, request.name, request.reference = found["kind"], found["name"], found["last"]
        version = request.version = await self._version(request, found["name"])
        handle = {"manifests": self._manifest, "blobs": self._blob, "tags": self._tags, "referrers": self._referrers}
        return await handle[found["kind"]](request, version, found["name"], found["last"])

    async def _login(self, request: PullRequest) -> PullLogin | None:
        try:
            return await self._access.login(request.headers, request.address)
        except PullError as refused:
            if refused.status != 401:
                raise
            found = _ROUTE.fullmatch(request.path)
            challenge = self._access.challenge(request.origin, found["name"] if found else None, "invalid_token")
            raise PullError(401, refused.code, refused.message, challenge.headers) from None

    async def _version(self, request: PullRequest, name: str) -> PublishedVersion:
        """The version that ``name`` stands for, if the request may see it; what it may not see does not exist."""
        try:
            RepositoryName(name)
        except InvalidReference as problem:
            raise PullError(400, "NAME_INVALID", str(problem)) from None
        version = await self._lookups.published(name)
        if version is not None and self._access.may_pull(request.login, version, name):
            return version
        login = request.login
        is_of_other_names = login is not None and login.names is not None and name not in login.names | login.refused
        if login is None or login.is_anonymous or is_of_other_names:
            raise self._access.challenge(request.origin, name, None if login is None else "insufficient_scope")
        raise PullError(404, "NAME_UNKNOWN", "repository name not known to registry")

    async def _manifest(self, request: PullRequest, version: PublishedVersion, _name: str, reference: str) -> Reply:
        unknown = PullError(404, "MANIFEST_UNKNOWN", "manifest unknown to registry")
        if ":" in reference:
            digest: Digest | None = _digest(reference)
        else:
            try:
                digest = await self._lookups.tag(version, TagName(reference))
            except InvalidReference:
                raise unknown from None
        manifest = None if digest is None else await self._lookups.manifest(version, digest)
        if manifest is None:
            raise unknown
        headers = {
            "Content-Type": manifest.media_type.partition(";")[0].strip(),
            **_content_headers(manifest.digest, is_by_digest=":" in reference),
        }
        if is_unchanged(request.headers, headers["ETag"]):
            return Reply(304, headers=headers)
        return Reply(200, manifest.data, headers)

    async def _blob(self, request: PullRequest, version: PublishedVersion, _name: str, reference: str) -> Reply:
        digest = _digest(reference)
        blob = await self._lookups.blob(version, digest)
        if blob is None:
            raise PullError(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": "attachment",
            "Accept-Ranges": "bytes",
            **_content_headers(digest, is_by_digest=True),
        }
        if is_unchanged(request.headers, headers["ETag"]):
            return Reply(304, headers=headers)
        is_sent = request.method == "GET" and self._delivery.sends(request.headers)
        stored = await self._in_thread(self._stored, blob, is_sent)
        if isinstance(stored, BlobBody) and request.method == "GET" and not is_sent:
            return await self._in_thread(self._delivery.elsewhere, digest, headers)
        body, fetch = (
            (stored, None) if isinstance(stored, BlobBody) else (None, await self._plan(version, blob, stored))
        )
        if_range = request.headers.get("if-range")
        asked = request.headers.get("range") if if_range in (None, headers["ETag"]) else None
        try:
            part = requested_range(asked, blob.size_bytes)
        except PullError:
            if body is not None:
                body.close()
            raise
        offset, length = part or (0, blob.size_bytes)
        if fetch is not None and self._on_demand is not None and request.method == "GET":
            body = await self._fetched(self._on_demand, fetch, blob, offset, length)
        body = body or BlobBody(blob.size_bytes)
        if part is None:
            return Reply(200, body, headers)
        body.offset, body.length = part
        headers["Content-Range"] = f"bytes {offset}-{offset + length - 1}/{blob.size_bytes}"
        return Reply(206, body, headers)

    async def _plan(self, version: PublishedVersion, blob: PublishedBlob, problem: PullError) -> BlobFetch:
        """How a blob that is not stored can be had. Raises ``problem`` when it cannot."""
        if self._on_demand is not None:
            plan = partial(self._on_demand.plan, version, blob.digest, is_damaged=problem.status == 503)
            fetch = await self._lookups.run(plan)
            if fetch is not None:
                return fetch
        raise problem

    async def _fetched(
        self, on_demand: OnDemand, fetch: BlobFetch, blob: PublishedBlob, offset: int, length: int
    ) -> BlobBody:
        """A part of a blob that is being downloaded, or was stored meanwhile."""
        coming = await on_demand.read(fetch, offset, length)
        if coming is not None:
            return BlobBody(blob.size_bytes, offset, length, coming=coming)
        stored = await self._in_thread(self._stored, blob, True)
        if isinstance(stored, PullError):
            raise stored
        return stored

    async def _in_thread(self, work: Callable[..., T], *given: Any) -> T:
        """Not in the threads of the database, which a slow object store would keep from all other requests."""
        return await asyncio.get_running_loop().run_in_executor(None, work, *given)

    def _stored(self, blob: PublishedBlob, is_sent: bool) -> BlobBody | PullError:
        """A blob that is stored, its size compared, and opened if it ``is_sent``; for others why it cannot be sent."""
        file: FileIO | None = None
        try:
            if is_sent and isinstance(self._store, LocalBlobStore):
                file = self._store.open_file(blob.digest)
                found = os.fstat(file.fileno()).st_size
            else:
                found = self._store.size(blob.digest)
        except BlobMissing:
            return PullError(404, "BLOB_UNKNOWN", "the bytes of this blob are not stored here")
        if found != blob.size_bytes:
            if file is not None:
                file.close()
            _log.error("blob %s is stored with %d bytes instead of %d", blob.digest, found, blob.size_bytes)
            return _damaged()
        if file is None:
            return BlobBody(found, open=lambda: self._store.open(blob.digest))
        if found > _SMALL_BYTES:
            return BlobBody(found, file=file)
        with file:
            data = file.read(found)
        if len(data) != found:
            return _damaged()
        return BlobBody(found, data=data)

    async def _tags(self, request: PullRequest, version: PublishedVersion, name: str, _last: str) -> Reply:
        limit = _limit(request, _MOST_TAGS)
        found = await self._lookups.tags(version, request.one("last"), limit + 1) if limit else []
        headers = {"Cache-Control": _NOT_AT_ALL}
        if len(found) > limit:
            found = found[:limit]
            headers["Link"] = _next(request.path, n=str(limit), last=found[-1].name)
        # As Google's registries list digests, so that a mirror learns at once that nothing has moved.
        images: dict[str, dict[str, Any]] = {}
        for tag in found:
            images.setdefault(tag.digest, {"mediaType": tag.media_type, "tag": []})["tag"].append(tag.name)
        return _json({"name": name, "tags": [tag.name for tag in found], "manifest": images}, headers)

    async def _referrers(self, request: PullRequest, version: PublishedVersion, _name: str, reference: str) -> Reply:
        digest, artifact_type = _digest(reference), request.one("artifactType") or None
        limit = min(_limit(request, _MOST_REFERRERS) or _MOST_REFERRERS, _MOST_REFERRERS)
        entries: list[str] = []
        left, last, has_more, is_cut = _MOST_INDEX_BYTES, request.one("last"), True, False
        while has_more and not is_cut:
            batch = await self._lookups.referrers(
                version, digest, artifact_type=artifact_type, after=last, limit=_REFERRERS_AT_ONCE
            )
            has_more = len(batch) == _REFERRERS_AT_ONCE
            for entry in batch:
                text = json.dumps(_descriptor(entry), separators=(",", ":"))
                left -= len(text) + 1
                is_cut = len(entries) == limit or (left < 0 and bool(entries))
                if is_cut:
                    break
                entries.append(text)
                last = entry.digest
        headers = {"Content-Type": _INDEX_TYPE, "Cache-Control": _NOT_AT_ALL}
        more = {}
        if artifact_type is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
            more["artifactType"] = artifact_type
        if is_cut:
            headers["Link"] = _next(request.path, **more, n=str(limit), last=str(last))
        body = f'{{"schemaVersion":2,"mediaType":"{_INDEX_TYPE}","manifests":[{",".join(entries)}]}}'
        return Reply(200, body.encode(), headers)

    async def _catalog(self, request: PullRequest) -> Reply:
        """The base paths that the request may pull."""
        limit = _limit(request, _MOST_BASE_PATHS)
        reader = await self._access.reader(request.login)
        shown: list[str] = []
        last, has_more = request.one("last"), limit > 0
        while has_more and len(shown) <= limit:
            batch = await self._lookups.base_paths(last, _MOST_BASE_PATHS)
            shown += [
                path for path, is_private in batch if not is_private or (reader is not None and reader.may_pull(path))
            ]
            has_more = len(batch) == _MOST_BASE_PATHS
            last = batch[-1][0] if batch else last
        headers = {"Cache-Control": _NOT_AT_ALL}
        if len(shown) > limit > 0:
            shown = shown[:limit]
            headers["Link"] = _next("/v2/_catalog", n=str(limit), last=shown[-1])
        return _json({"repositories": shown[:limit]}, headers)


def _damaged() -> PullError:
    return unavailable("the stored bytes of this blob are damaged", 60)


def _json(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(200, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})


def _digest(text: str) -> Digest:
    try:
        return Digest(text)
    except InvalidReference as problem:
        raise PullError(400, "DIGEST_INVALID", str(problem)) from None


def _content_headers(digest: Digest, *, is_by_digest: bool) -> dict[str, str]:
    return {
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        # Whatever compresses replies on the way would change their length, and nobody could resume them.
        "Content-Encoding": "identity",
        "Cache-Control": _FOREVER if is_by_digest else _NOT_AT_ALL,
    }


def _limit(request: PullRequest, most: int) -> int:
    """``n`` of the query, at most ``most``, which it is without one. Raises :class:`PullError` for no number."""
    text = request.one("n")
    if text is None or text == "":
        return most
    if not re.fullmatch(r"[0-9]+", text):
        raise PullError(400, "PAGINATION_NUMBER_INVALID", "n is how many entries are wanted: a whole number")
    return most if len(text) > _MOST_DIGITS else min(int(text), most)


def _next(path: str, **query: str) -> str:
    return f'<{quote(path)}?{urlencode(query)}>; rel="next"'


def _descriptor(entry: Referrer) -> dict[str, Any]:
    document: dict[str, Any] = {"mediaType": entry.media_type, "digest": entry.digest, "size": entry.size_bytes}
    if entry.artifact_type:
        document["artifactType"] = entry.artifact_type
    if entry.annotations:
        document["annotations"] = entry.annotations
    return document


async def _live(receive: Receive, send: Send, close: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            close()
            await send({"type": "lifespan.shutdown.complete"})
            return
