"""A registry in memory: repositories of any content, faults by script, and a log of what was requested.

It stands where a real one does in tests of what a sync makes of content, and speaks no HTTP: its :meth:`client` is the
second implementation of :class:`~registry_sync.oci.client.RegistryReader`. ``tests/contract/registry`` holds both
against the same suite. What is filled, changed and logged is called as in :class:`~support.registry.RegistryServer`.

A script says what one request gets in place of what the registry holds: ``registry.on("HEAD", "manifest", "latest",
HELD, HELD, refusal(429, "TOOMANYREQUESTS", retry_after_seconds=7), HELD)`` refuses the third HEAD of a tag.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.http.options import ClientOptions
from support.images import Blob, BuiltManifest, RepositoryContent
from support.registry import PASSWORD, USERNAME, LoggedRequest, RequestLog
from support.signatures import referrer_entry, subject_of

if TYPE_CHECKING:
    from support.memory_client import MemoryClient


@dataclass(frozen=True)
class MemoryResponse:
    """What a request gets: a body, or a refusal by ``status``; 0 is a connection that breaks before any response.

    ``digest`` is what is declared for a manifest. ``has_more`` says that another page follows. ``breaks_after`` is how
    many bytes of the body arrive before the connection breaks; None for all. ``has_challenge`` says of a 401 whether it
    reports how to authenticate.
    """

    status: int = 200
    data: bytes = field(default=b"", repr=False)
    media_type: str = ""
    digest: Digest | None = None
    has_more: bool = False
    breaks_after: int | None = None
    codes: tuple[str, ...] = ()
    message: str = ""
    retry_after_seconds: float | None = None
    has_challenge: bool = False


@dataclass(frozen=True)
class Held:
    """What the registry holds, of which ``breaks_after`` bytes arrive; None for all."""

    breaks_after: int | None = None


HELD = Held()
#: Any reference, where nothing is said of one by its name.
ANY = "*"
NO_RESPONSE = MemoryResponse(status=0)
Scripted = MemoryResponse | Held
#: A response, or what gives it when the request comes.
Script = Scripted | Callable[[], Scripted]


def refusal(
    status: int,
    code: str | None = None,
    message: str = "",
    *,
    retry_after_seconds: float | None = None,
    has_challenge: bool = False,
) -> MemoryResponse:
    """A refusal by ``status``, with a code of the specification or with nothing."""
    return MemoryResponse(
        status,
        codes=(code,) if code else (),
        message=message,
        retry_after_seconds=retry_after_seconds,
        has_challenge=has_challenge,
    )


def document(data: bytes | str, media_type: str = media_types.OCI_MANIFEST, **more: Any) -> MemoryResponse:
    """A manifest, or whatever stands in its place."""
    return MemoryResponse(data=data.encode() if isinstance(data, str) else data, media_type=media_type, **more)


def tag_page(
    names: Iterable[Any],
    *,
    has_more: bool = False,
    digests: Mapping[str, str] | None = None,
    pushed: Mapping[str, int] = MappingProxyType({}),
) -> MemoryResponse:
    """A page of tags; with ``digests`` of tags, and seconds of their pushes, as Google's registries list them."""
    page: dict[str, Any] = {"tags": list(names)}
    if digests is not None:
        images: dict[str, list[str]] = {}
        for name, digest in digests.items():
            images.setdefault(digest, []).append(name)
        page["manifest"] = {
            digest: {"tag": tags, "timeUploadedMs": f"{max(pushed.get(tag, 0) for tag in tags)}000"}
            if pushed
            else {"tag": tags}
            for digest, tags in images.items()
        }
    return MemoryResponse(data=json.dumps(page).encode(), has_more=has_more)


def digest_page(
    digests: Mapping[str, Any], *, has_more: bool = False, pushed: Mapping[str, int] = MappingProxyType({})
) -> MemoryResponse:
    """A page of tags with digests, and the seconds of their pushes, as Quay lists them."""
    entries: list[dict[str, Any]] = [{"name": name, "manifest_digest": digest} for name, digest in digests.items()]
    for entry in entries:
        if entry["name"] in pushed:
            entry["start_ts"] = pushed[entry["name"]]
    return MemoryResponse(data=json.dumps({"tags": entries, "has_additional": has_more}).encode())


def referrers_page(entries: Iterable[Any], *, has_more: bool = False) -> MemoryResponse:
    """A page of descriptors of referrers."""
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": list(entries)}
    return document(json.dumps(index), media_types.OCI_INDEX, has_more=has_more)


@dataclass(frozen=True)
class MemoryRequest:
    """``kind`` is tags, digests, manifest, blob or referrers; ``last`` continues a listing, ``offset`` a blob.

    Of digests, ``last`` is the number of a page.
    """

    method: str
    kind: str
    repository: str
    reference: str = ""
    last: str | None = None
    offset: int = 0


@dataclass
class _Repository:
    tags: dict[str, Digest] = field(default_factory=dict)
    manifests: dict[Digest, BuiltManifest] = field(default_factory=dict)
    blobs: dict[Digest, Blob] = field(default_factory=dict)
    #: By the manifest that they refer to, as entries of a listing; None when it is to be found out again.
    referrers: dict[str, list[dict[str, Any]]] | None = None


_numbers = itertools.count(1)
_running: WeakValueDictionary[str, MemoryRegistry] = WeakValueDictionary()


def running_at(url: str) -> MemoryRegistry | None:
    """The registry in memory at that URL, None for all others."""
    return _running.get(url)


class MemoryRegistry:
    """Has an address of its own, at which clients of ``support.syncing`` find it as long as it is referred to; or that
    of another that is gone.

    ``basic_auth`` requires the user and password of ``support.registry``. ``has_referrers_api`` says whether it lists
    referrers, as Debian's does not. ``page_size`` is how many tags a page has. ``tells_digests`` says whether a HEAD
    does.

    ``lists_digests`` says whether the list of tags has digests, as Google's; ``has_digest_api`` whether another list
    does, as Quay's, with ``digest_page_size`` tags on a page, the last by name first. Either has the seconds in
    ``pushed`` at which tags were pushed.
    """

    def __init__(
        self,
        *,
        netloc: str | None = None,
        basic_auth: bool = False,
        has_referrers_api: bool = False,
        page_size: int = 1000,
        tells_digests: bool = True,
        lists_digests: bool = False,
        has_digest_api: bool = False,
        digest_page_size: int = 100,
    ) -> None:
        self.netloc = netloc or f"memory-{next(_numbers)}.test"
        self.url = f"http://{self.netloc}"
        self.basic_auth = basic_auth
        self.has_referrers_api = has_referrers_api
        self.page_size = page_size
        self.tells_digests = tells_digests
        self.lists_digests = lists_digests
        self.has_digest_api = has_digest_api
        self.digest_page_size = digest_page_size
        self.pushed: dict[str, int] = {}
        self._frozen_digests: dict[str, dict[str, Digest]] | None = None
        self._repositories: dict[str, _Repository] = {}
        self._scripts: dict[tuple[str, str, str], list[Script]] = {}
        self._scripts_of: dict[str, dict[tuple[str, str, str], list[Script]]] = {}
        self._everything: Scripted | None = None
        self._log: list[LoggedRequest] = []
        self._lock = threading.RLock()
        _running[self.url] = self

    def __enter__(self) -> MemoryRegistry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        _running.pop(self.url, None)

    def client(self, credentials: Credentials | None = None, options: ClientOptions | None = None) -> MemoryClient:
        """A reader of this registry, with a usage and a memory of its own."""
        from support.memory_client import MemoryClient

        return MemoryClient(self, credentials, options)

    # -- what it holds -------------------------------------------------------------------------------------------

    def add(self, repository: str, content: RepositoryContent) -> None:
        """Adds all of ``content``; its tags move."""
        with self._lock:
            held = self._held(repository)
            held.blobs.update(content.blobs)
            held.manifests.update(content.manifests)
            held.tags.update(content.tags)
            held.referrers = None

    def serve(self, repository: str, content: RepositoryContent) -> None:
        """Adds all of ``content``, lists its tags and no others, and forgets what scripts said of it."""
        with self._lock:
            self.add(repository, content)
            self._held(repository).tags = dict(content.tags)
            known = {"", *content.tags, *content.manifests, *content.blobs}
            self._scripts = {
                key: script for key, script in self._scripts.items() if key[1] == "referrers" or key[2] not in known
            }

    def push_manifest(self, repository: str, reference: str, media_type: str, data: bytes) -> Digest:
        """Puts a manifest under a tag or its digest."""
        digest = Digest(reference) if ":" in reference else Digest.of(data)
        with self._lock:
            held = self._held(repository)
            held.manifests[digest] = BuiltManifest(digest, media_type, data)
            held.referrers = None
            if ":" not in reference:
                held.tags[reference] = digest
        return digest

    def push_blob(self, repository: str, digest: Digest, data: bytes) -> None:
        """Puts ``data`` under ``digest``, also where it hashes to another."""
        with self._lock:
            self._held(repository).blobs[digest] = Blob(digest, len(data), known_data=data)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Deletes a manifest and with it the tags that name it."""
        with self._lock:
            held = self._repositories[repository]
            del held.manifests[Digest(digest)]
            held.tags = {name: tagged for name, tagged in held.tags.items() if tagged != digest}
            held.referrers = None

    def delete_blob(self, repository: str, digest: str) -> None:
        """Takes a blob out of a repository."""
        with self._lock:
            del self._repositories[repository].blobs[Digest(digest)]

    def delete_tag(self, repository: str, tag: str) -> None:
        """Deletes a tag and leaves its manifest."""
        with self._lock:
            del self._repositories[repository].tags[tag]

    def damage_blob(self, digest: Digest) -> None:
        """Changes one byte of what every repository holds under ``digest``."""
        with self._lock:
            for name, held in self._repositories.items():
                if digest in held.blobs:
                    data = bytearray(held.blobs[digest].data)
                    data[len(data) // 2] ^= 1
                    self.push_blob(name, digest, bytes(data))

    def tags(self, repository: str) -> list[str]:
        """The tags it lists, sorted; none for a repository it does not know."""
        with self._lock:
            return sorted(self._repositories[repository].tags) if repository in self._repositories else []

    def freeze_digests(self) -> None:
        """Lets every list of digests be as it is now, whatever moves."""
        with self._lock:
            self._frozen_digests = {name: dict(held.tags) for name, held in self._repositories.items()}

    def thaw_digests(self) -> None:
        """Ends :meth:`freeze_digests`."""
        with self._lock:
            self._frozen_digests = None

    def _held(self, repository: str) -> _Repository:
        return self._repositories.setdefault(repository, _Repository())

    # -- scripts -------------------------------------------------------------------------------------------------

    def on(self, method: str, kind: str, reference: str, *responses: Script, repository: str | None = None) -> None:
        """Lays down what such requests get, one after another; the last stays.

        ``reference`` is empty for tags, and may be :data:`ANY`; ``repository`` None is every one.
        """
        with self._lock:
            scripts = self._scripts if repository is None else self._scripts_of.setdefault(repository, {})
            scripts[method, kind, reference] = list(responses)

    def forget(self, kind: str) -> None:
        """Forgets what scripts say of requests of a kind."""
        with self._lock:
            self._scripts = {key: script for key, script in self._scripts.items() if key[1] != kind}

    def on_everything(self, response: Scripted) -> None:
        """Gives every request this from now on, whatever was laid down."""
        with self._lock:
            self._everything = response

    # -- what was requested --------------------------------------------------------------------------------------

    def log(self) -> RequestLog:
        """Everything requested since the start or :meth:`reset_counts`, in the order in which it came."""
        with self._lock:
            return RequestLog(tuple(self._log))

    def reset_counts(self) -> None:
        """Forgets what was requested so far."""
        with self._lock:
            self._log = []

    # -- responses -----------------------------------------------------------------------------------------------

    def respond(self, request: MemoryRequest, credentials: Credentials | None) -> MemoryResponse:
        """What ``request`` gets; it is logged when it comes, with the status 0."""
        with self._lock:
            query = {"last": [request.last]} if request.last is not None else {}
            self._log.append(
                LoggedRequest(request.method, request.kind, request.repository, request.reference, 0, 0, "", query)
            )
            script: Script = self._everything or self._script(request)
        # A script may wait for other requests.
        scripted = script() if callable(script) else script
        response = scripted
        if isinstance(scripted, Held):
            with self._lock:
                response = self._refused(credentials) or self._response(request)
            response = replace(response, breaks_after=scripted.breaks_after)
        assert isinstance(response, MemoryResponse)
        # A response to HEAD has no body, and so no codes.
        return replace(response, codes=(), message="") if request.method == "HEAD" else response

    def _script(self, request: MemoryRequest) -> Script:
        named, any_named = (request.method, request.kind, request.reference), (request.method, request.kind, ANY)
        own = self._scripts_of.get(request.repository, {})
        scripts = own.get(named) or own.get(any_named) or self._scripts.get(named) or self._scripts.get(any_named)
        if not scripts:
            return HELD
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    def _refused(self, credentials: Credentials | None) -> MemoryResponse | None:
        is_known = credentials is not None and (credentials.username, credentials.password) == (USERNAME, PASSWORD)
        if self.basic_auth and not is_known:
            return refusal(401, "UNAUTHORIZED", "authentication required", has_challenge=True)
        return None

    def _response(self, request: MemoryRequest) -> MemoryResponse:
        held = self._repositories.get(request.repository)
        if held is None:
            return refusal(404, "NAME_UNKNOWN", "repository name not known to registry")
        digests = held.tags if self._frozen_digests is None else self._frozen_digests[request.repository]
        if request.kind == "tags":
            return self._tags(held, request.last, digests)
        if request.kind == "digests":
            return self._digest_page(digests, int(request.last or 1))
        if request.kind == "blob":
            return self._blob(held, request)
        if request.kind == "referrers":
            return self._referrers(held, request.reference)
        return self._manifest(held, request.reference)

    def _tags(self, held: _Repository, last: str | None, digests: Mapping[str, Digest]) -> MemoryResponse:
        names = sorted(name for name in held.tags if last is None or name > last)
        page = names[: self.page_size]
        listed = {name: digests[name] for name in page if name in digests} if self.lists_digests else None
        return tag_page(page, has_more=len(names) > self.page_size, digests=listed, pushed=self.pushed)

    def _digest_page(self, digests: Mapping[str, Digest], number: int) -> MemoryResponse:
        if not self.has_digest_api:
            return refusal(404, message="404 page not found")
        names, size = sorted(digests, reverse=True), self.digest_page_size
        page = names[(number - 1) * size : number * size]
        found = {name: digests[name] for name in page}
        return digest_page(found, has_more=len(names) > number * size, pushed=self.pushed)

    def _manifest(self, held: _Repository, reference: str) -> MemoryResponse:
        digest = held.tags.get(reference) if ":" not in reference else Digest(reference)
        manifest = held.manifests.get(digest) if digest is not None else None
        if manifest is None:
            return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")
        reported = manifest.digest if self.tells_digests else None
        return MemoryResponse(data=manifest.data, media_type=manifest.media_type, digest=reported)

    @staticmethod
    def _blob(held: _Repository, request: MemoryRequest) -> MemoryResponse:
        blob = held.blobs.get(Digest(request.reference))
        if blob is None:
            return refusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if request.method == "HEAD":
            return MemoryResponse(data=bytes(blob.size_bytes))
        status = 206 if request.offset else 200
        return MemoryResponse(status, data=blob.data[request.offset :], media_type="application/octet-stream")

    def _referrers(self, held: _Repository, subject: str) -> MemoryResponse:
        if not self.has_referrers_api:
            return refusal(404, message="404 page not found")
        if held.referrers is None:
            held.referrers = {}
            for manifest in held.manifests.values():
                # What is no JSON is kept too, and says nothing of a subject.
                if manifest.data.startswith(b"{") and (of := subject_of(manifest)) is not None:
                    held.referrers.setdefault(of, []).append(referrer_entry(manifest))
        return referrers_page(held.referrers.get(subject, []))
