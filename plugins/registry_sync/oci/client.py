"""The client of one registry: everything that a sync reads from it, behind one small interface."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import Descriptor, Manifest
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName
from registry_sync.domain.registry_pace import HEAD_START_SECONDS, RegistryPace
from registry_sync.errors import (
    NotARegistry,
    NotFound,
    ProtocolError,
    RegistryError,
    RegistrySyncError,
    RepositoryUnavailable,
)
from registry_sync.oci.auth.authenticator import Authenticator
from registry_sync.oci.auth.credentials import Credentials, CredentialSource, RealmPolicy, ReportedCredentials
from registry_sync.oci.auth.tokens import TokenStore
from registry_sync.oci.blobs import BlobDestination, BlobFetcher
from registry_sync.oci.http.error_mapping import RequestContext, printable, speaks_for_a_registry
from registry_sync.oci.http.many_heads import HeadsLeft, StartedRequest
from registry_sync.oci.http.options import SYSTEM_CLOCK, ClientOptions, Clock
from registry_sync.oci.http.origins import Origin
from registry_sync.oci.http.rate_limits import AccountBudget, PullLimit, Usage
from registry_sync.oci.http.requester import ChallengeProbe, Pause, Requester, Retry
from registry_sync.oci.http.responses import Response, web_page
from registry_sync.oci.http.transport import Transport
from registry_sync.oci.manifests import ManifestHead, ManifestReader
from registry_sync.oci.referrers import ReferrersReader
from registry_sync.oci.tag_digests import DigestListReader, TagDigests
from registry_sync.oci.tags import TagListing, has_tag_list, list_tags

if TYPE_CHECKING:
    import requests


MAX_RESPONSE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Ping:
    """The registry's response to ``/v2/``.

    ``auth_scheme`` is ``none``, ``basic`` or ``bearer``; ``realm_host`` and ``service`` belong to a bearer challenge.
    ``api_version`` is the legacy ``Docker-Distribution-API-Version``, None on registries that no longer send it.
    ``is_authenticated`` says that credentials were requested and accepted. ``clock_offset_seconds`` is how far the
    registry's clock is ahead, None without a ``Date`` header. ``is_served`` False says that ``/v2/`` itself is missing,
    as before some proxies, and that a registry's error came instead: then nothing is known about authentication.
    """

    auth_scheme: str
    realm_host: str | None = None
    service: str | None = None
    api_version: str | None = None
    is_authenticated: bool = False
    clock_offset_seconds: float | None = None
    is_served: bool = True


def ping(requester: Requester, authenticator: Authenticator) -> Ping:
    """Requests ``/v2/`` and authenticates. Raises :class:`NotARegistry` when something else responds there."""
    target = requester.target("/v2/")
    host = target.origin.netloc
    found: dict[str, Any] = {}
    try:
        found = requester.send("GET", target, RequestContext("registry", subject=host), {}, _read)
    except RepositoryUnavailable:
        # Some registries issue anonymous tokens for repositories only. It is a registry all the same.
        if authenticator.selected is None:
            raise
    except (NotFound, ProtocolError) as problem:
        if speaks_for_a_registry(problem):
            return Ping("none", is_served=False)
        raise NotARegistry(
            f"{host} does not respond as a registry at /v2/: {problem}",
            host=host,
            method="GET",
            url=target.url,
            status=problem.status,
        ) from problem
    selected = authenticator.selected
    if selected is None:
        return Ping("none", **found)
    return Ping(
        selected.scheme,
        realm_host=authenticator.realm_host(),
        service=selected.challenge.service,
        is_authenticated=not authenticator.is_anonymous,
        **found,
    )


def _read(response: Response) -> dict[str, Any]:
    """The version and clock offset in the headers. Raises :class:`ProtocolError` for a web page."""
    data = response.read(MAX_RESPONSE_BYTES, "response to /v2/")
    page = web_page(data, response.header("Content-Type"))
    if page is not None or data.lstrip()[:1] == b"<":
        raise response.protocol_error(f"{page or 'a web page'} is served there", is_web_page=True)
    version = response.header("Docker-Distribution-API-Version")
    return {
        "api_version": printable(version)[:64] if version else None,
        "clock_offset_seconds": _clock_offset(response.header("Date")),
    }


def _clock_offset(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date or "").timestamp() - time.time()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


class RegistryReader(Protocol):
    """What a sync reads from a registry: the one seam with a second implementation, which tests have in memory.

    Each method gives, raises and counts what :class:`RegistryClient` says of it; both pass one contract suite.
    """

    @property
    def usage(self) -> Usage: ...

    @property
    def requests_at_once(self) -> int: ...

    def list_tags(self, repository: RepositoryName) -> TagListing: ...

    @property
    def may_list_digests(self) -> bool: ...

    def list_tag_digests(
        self, repository: RepositoryName, tags: Set[TagName], *, most_requests: int
    ) -> TagDigests | None: ...

    def head_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, *, started: StartedRequest | None = None
    ) -> ManifestHead: ...

    def head_manifests(
        self,
        repository: RepositoryName,
        tags: Sequence[TagName],
        done: Callable[[TagName, Digest], None],
        *,
        most: Callable[[], int],
    ) -> HeadsLeft: ...

    def get_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, *, expected: Descriptor | None = None
    ) -> Manifest: ...

    def fetch_blob(self, repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> int: ...

    def list_referrers(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]: ...

    def list_referrers_by_api(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None: ...


T = TypeVar("T")


class RegistryClient:
    """Reads from one registry. Safe to share between threads; two clients share nothing, but by :meth:`sharing`.

    ``credentials`` may be a callable that returns the current ones. ``on_secret`` is called with each secret before it
    is used, tokens issued by the registry included. ``usage`` counts the requests. ``budget`` is what its account
    allows all processes, None for no others. The files that the options name are read by the constructor only.
    """

    def __init__(
        self,
        registry: RegistryUrl,
        credentials: Credentials | CredentialSource | None = None,
        options: ClientOptions | None = None,
        on_secret: Callable[[str], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        *,
        budget: AccountBudget | None = None,
    ) -> None:
        options = options or ClientOptions()
        report = on_secret or (lambda _secret: None)
        self.registry = registry
        origin = Origin.of(registry)
        self._clock = clock
        self._transport = Transport(origin, options, clock, budget)
        self._pause = Pause(clock, budget)
        self._authenticator = Authenticator(
            ReportedCredentials(credentials, report),
            TokenStore(self._transport, clock, report),
            RealmPolicy(origin, options.trusted_realm_hosts, allow_insecure=options.allow_insecure_credentials),
            ChallengeProbe(self._transport),
        )
        self._pulls = PullLimit(
            options.rate_limit_floor, options.rate_limit_sharers, host=origin.netloc, clock=clock, budget=budget
        )
        self._is_shared = False
        self._read_with(options)

    def _read_with(self, options: ClientOptions) -> None:
        """Makes what belongs to this client alone; connections, tokens and limits may be those of others too."""
        self.options = options
        self.usage = Usage()
        retry = Retry(options, self._clock, self.usage, self._pause)
        self._requester = Requester(self._transport, self._authenticator, retry, self._clock, self.usage)
        self._manifests = ManifestReader(self._requester, options, self._pulls)
        self._referrers = ReferrersReader(self._requester, self._manifests, options)
        self._blobs = BlobFetcher(self._requester, options, self._clock)
        self._digest_lists = DigestListReader(self._requester, self._authenticator, options)
        self._lists_digests = False
        self._ping_lock = threading.Lock()
        self._is_registry = False

    def sharing(self, options: ClientOptions) -> RegistryClient:
        """A client over the connections, the tokens and the limits of this one, with a usage of its own.

        ``options`` differ only in what concerns content; those of connections are this client's. It is closed with this
        client, and not by itself.
        """
        client = copy(self)
        client._is_shared = True  # noqa: SLF001  it is one of this class
        client._read_with(options)  # noqa: SLF001
        return client

    @property
    def is_anonymous(self) -> bool:
        """Whether the client has no credentials."""
        return self._authenticator.is_anonymous

    @property
    def requests_at_once(self) -> int:
        """How many requests this client, and those that it shares connections with, have under way at once for now."""
        return self._transport.concurrency.limit

    def learned(self) -> dict[str, Any] | None:
        """What the registry taught about authentication, no secret: :meth:`Authenticator.learned`."""
        return self._authenticator.learned()

    def begin_with(self, learned: Mapping[str, Any] | None) -> None:
        """Begins with what the client of another process :meth:`learned`, so that no request is refused first."""
        self._authenticator.begin_with(learned)

    def begin_at(self, pace: RegistryPace | None) -> None:
        """Begins with as many requests at once as another client has found, before any: :meth:`pace`; None for 20."""
        self._transport.concurrency.begin_with(pace)
        self._lists_digests = pace is not None and pace.lists_digests

    def pace(self) -> RegistryPace | None:
        """How many requests at once the registry has served, for :meth:`begin_at`: :meth:`Concurrency.pace`."""
        pace = self._transport.concurrency.pace()
        return pace if pace is None else replace(pace, lists_digests=self._lists_digests)

    @property
    def may_request_early(self) -> bool:
        """Whether many requests may be sent beside the first one, before there is any response.

        It began at the pace of another client; the registry is known to request nothing, or tokens, so that no password
        is sent by each; nothing limits the requests; and no API would make them needless.
        """
        transport = self._transport
        is_limited = transport.rate.is_limited or self.options.rate_limit_floor is not None
        may_begin = transport.concurrency.is_known_far and self._authenticator.sends_no_password
        return may_begin and not is_limited and not self.may_list_digests

    def open_connections(self, count: int) -> None:
        """Opens connections beside the caller for ``count`` requests that will follow the next one, as many as may be.

        Only to a registry that is known to be far away, where each saves the round trips of its opening; and where
        requests wait for no turn. Nothing is requested. What fails is found by the request that needs a connection.
        """
        transport = self._transport
        if transport.concurrency.is_far and not transport.rate.is_limited:
            count = min(count, transport.concurrency.limit) - 1  # the next request opens its own
            transport.open_more(count, head_start_seconds=HEAD_START_SECONDS)

    def ping(self, repository: RepositoryName | None = None) -> Ping:
        """The response at ``/v2/``, with the credentials tried. Raises :class:`NotARegistry` and authentication errors.

        Some proxies serve the paths of repositories alone: a host with a tag list of ``repository`` is a registry too.
        """
        try:
            return ping(self._requester, self._authenticator)
        except NotARegistry:
            if repository is None or not has_tag_list(self._requester, repository):
                raise
            return Ping("none", is_served=False)

    def list_tags(self, repository: RepositoryName) -> TagListing:
        """All tags of ``repository``: :func:`registry_sync.oci.tags.list_tags`.

        As every read, it also raises :class:`NotARegistry` when a web page comes in its place and the host has
        responded as a registry neither at ``/v2/`` nor elsewhere. Digests in the list are omitted where ``digest_list``
        is off, and for a cache of another registry.
        """
        listing = self._from_a_registry(repository, lambda: list_tags(self._requester, repository))
        self._lists_digests = listing.digest_list is not None
        return listing if self._digest_lists.are_used else replace(listing, digests={}, pushed_at={})

    def list_repositories(self) -> tuple[RepositoryName, ...]:
        """All repositories of the registry: :func:`registry_sync.oci.catalog.list_repositories`."""
        from registry_sync.oci.catalog import list_repositories  # which no sync needs

        return list_repositories(self._requester)

    @property
    def may_list_digests(self) -> bool:
        """Whether :meth:`list_tag_digests` has an API to ask, as far as is known; no request is sent for it."""
        return self._digest_lists.has_api

    def list_tag_digests(
        self, repository: RepositoryName, tags: Set[TagName], *, most_requests: int
    ) -> TagDigests | None:
        """The digests of ``tags``, all that are listed, by an API of the registry: :meth:`DigestListReader.read`."""
        return self._digest_lists.read(repository, tags, most_requests)

    def head_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, *, started: StartedRequest | None = None
    ) -> ManifestHead:
        """What the registry says about a manifest: a hint. Raises :class:`NotFound` with kind ``manifest``.

        ``started`` is what :meth:`head_manifests` has left of it, to go on from.
        """
        return self._from_a_registry(repository, lambda: self._manifests.head(repository, reference, started))

    def head_manifests(
        self,
        repository: RepositoryName,
        tags: Sequence[TagName],
        done: Callable[[TagName, Digest], None],
        *,
        most: Callable[[], int],
    ) -> HeadsLeft:
        """Requests the digests of ``tags`` from the caller's thread, at most ``most`` at once, and calls ``done``.

        Returns the tags that are left to :meth:`head_manifest`, as what concerns them may take time, or raise: all of
        them where nothing can be requested so. See :class:`~registry_sync.oci.http.many_heads.ManyHeads`.
        """

        def found(tag: TagName, digest: Digest) -> None:
            self._is_registry = True
            done(tag, digest)

        return self._manifests.head_many(repository, tags, found, most=most)

    def drop_head(self, started: StartedRequest) -> None:
        """Counts a request that :meth:`head_manifests` has left and that nobody goes on from."""
        self.usage.add("head_count")
        if started.status is not None:
            self.usage.record_status(started.status)

    def get_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, *, expected: Descriptor | None = None
    ) -> Manifest:
        """The manifest with its exact bytes, verified; ``expected`` is the descriptor that led to it."""
        return self._from_a_registry(repository, lambda: self._manifests.get(repository, reference, expected))

    def fetch_blob(self, repository: RepositoryName, blob: Descriptor, writer: BlobDestination) -> int:
        """Downloads ``blob`` into ``writer`` and commits it; returns the bytes received: :meth:`BlobFetcher.fetch`."""
        return self._blobs.fetch(repository, blob, writer)

    def list_referrers(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """The referrers of ``subject``, by the referrers API or its fallback tag: :meth:`ReferrersReader.list`."""
        return self._referrers.list(repository, subject)

    def list_referrers_by_api(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None:
        """The same by the API alone, None where the API is missing: :meth:`ReferrersReader.list_by_api`."""
        return self._referrers.list_by_api(repository, subject, is_known=is_known)

    def _from_a_registry(self, repository: RepositoryName, read: Callable[[], T]) -> T:
        """The result of ``read``. After a web page in its place, checks that the host is a registry at all.

        Any earlier successful read proves a registry as well as ``/v2/`` does, which not all of them serve.
        """
        try:
            found = read()
        except RegistryError as problem:
            if problem.is_web_page:
                with self._ping_lock:
                    if not self._is_registry:
                        self._check_registry(repository)
            raise
        if not isinstance(found, ManifestHead) or found.digest is not None:
            self._is_registry = True
        return found

    def _check_registry(self, repository: RepositoryName) -> None:
        try:
            self.ping(repository)
        except NotARegistry:
            raise
        except RegistrySyncError:
            return  # the first error is reported
        self._is_registry = True

    def session(self) -> requests.Session:
        """A ``requests`` session over the same connections and tokens; redirects are followed by ``requests``."""
        from registry_sync.oci.http.session import open_session

        transport = self._transport
        return open_session(transport, self._authenticator)

    def close(self) -> None:
        """Closes the connections, unless they are another client's."""
        if not self._is_shared:
            self._transport.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
