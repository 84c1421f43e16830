"""The client of one registry: what a sync asks of it, behind one small interface."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifests import Descriptor, Manifest
from registry_sync.domain.references import RegistryUrl, RepositoryName, TagName
from registry_sync.errors import NotARegistry, RegistryError, RegistrySyncError
from registry_sync.oci.authenticator import Authenticator
from registry_sync.oci.blobs import BlobFetcher, BlobWriter
from registry_sync.oci.clock import SYSTEM_CLOCK, Clock
from registry_sync.oci.credentials import Credentials, CredentialSource, ToldCredentials
from registry_sync.oci.manifests import ManifestHead, ManifestReader
from registry_sync.oci.options import ClientOptions
from registry_sync.oci.origins import Origin
from registry_sync.oci.ping import Ping, ping
from registry_sync.oci.realm import RealmPolicy
from registry_sync.oci.referrers import ReferrersReader
from registry_sync.oci.requester import ChallengeProbe, Requester
from registry_sync.oci.retry import Retry
from registry_sync.oci.tags import TagListing, has_tag_list, list_tags
from registry_sync.oci.tokens import TokenStore
from registry_sync.oci.transport import Transport
from registry_sync.oci.usage import Usage

if TYPE_CHECKING:
    import requests

T = TypeVar("T")


class RegistryClient:
    """Reads from one registry; safe to share between threads, and nothing is shared between two clients.

    ``credentials`` may be a callable that gives those of the moment. ``on_secret`` is told every secret before it
    is used, tokens that the registry hands out included. ``usage`` counts what was asked. Files that
    the options name are read here and not needed afterwards.
    """

    def __init__(
        self,
        registry: RegistryUrl,
        credentials: Credentials | CredentialSource | None = None,
        options: ClientOptions | None = None,
        on_secret: Callable[[str], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        options = options or ClientOptions()
        told = on_secret or (lambda _secret: None)
        self.registry = registry
        self.options = options
        self.usage = Usage()
        origin = Origin.of(registry)
        self._transport = Transport(origin, options, clock)
        retry = Retry(options, clock, self.usage)
        self._authenticator = Authenticator(
            ToldCredentials(credentials, told),
            TokenStore(self._transport, clock, self.usage, told),
            RealmPolicy(origin, options.trusted_realm_hosts, allow_insecure=options.allow_insecure_credentials),
            ChallengeProbe(self._transport),
        )
        self._requester = Requester(self._transport, self._authenticator, retry, clock, self.usage)
        self._manifests = ManifestReader(self._requester, options)
        self._referrers = ReferrersReader(self._requester, self._manifests, options)
        self._blobs = BlobFetcher(self._requester, options, clock)
        self._ping_lock = threading.Lock()
        self._is_registry = False

    @property
    def is_anonymous(self) -> bool:
        """Whether it has no credentials."""
        return self._authenticator.is_anonymous

    def ping(self, repository: RepositoryName | None = None) -> Ping:
        """What answers at ``/v2/``, the credentials tried out. Raises :class:`NotARegistry` and what auth raises.

        Some proxies serve paths of repositories alone: where ``repository`` has a list of tags, it is a registry too.
        """
        try:
            return ping(self._requester, self._authenticator)
        except NotARegistry:
            if repository is None or not has_tag_list(self._requester, repository):
                raise
            return Ping("none", is_served=False)

    def list_tags(self, repository: RepositoryName) -> TagListing:
        """All tags of ``repository``: :func:`registry_sync.oci.tags.list_tags`.

        Raises :class:`NotARegistry` besides, as all that is read does, when a web page comes in place of it, and
        neither ``/v2/`` nor anything else was answered as by a registry.
        """
        return self._from_a_registry(repository, lambda: list_tags(self._requester, repository))

    def head_manifest(self, repository: RepositoryName, reference: TagName | Digest) -> ManifestHead:
        """What the registry says of a manifest; a hint. Raises :class:`NotFound` with kind ``manifest``."""
        return self._from_a_registry(repository, lambda: self._manifests.head(repository, reference))

    def get_manifest(
        self, repository: RepositoryName, reference: TagName | Digest, *, expected: Descriptor | None = None
    ) -> Manifest:
        """The manifest with its exact bytes, verified; ``expected`` is the descriptor that led to it."""
        return self._from_a_registry(repository, lambda: self._manifests.get(repository, reference, expected))

    def fetch_blob(self, repository: RepositoryName, blob: Descriptor, writer: BlobWriter) -> int:
        """Brings ``blob`` into ``writer`` and commits it; gives the bytes received: :meth:`BlobFetcher.fetch`."""
        return self._blobs.fetch(repository, blob, writer)

    def list_referrers(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:
        """What refers to ``subject`` by the referrers API or its fallback tag: :meth:`ReferrersReader.list`."""
        return self._referrers.list(repository, subject)

    def list_referrers_by_api(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None:
        """The same by the API alone, None where there is none: :meth:`ReferrersReader.list_by_api`."""
        return self._referrers.list_by_api(repository, subject, is_known=is_known)

    def _from_a_registry(self, repository: RepositoryName, ask: Callable[[], T]) -> T:
        """What ``ask`` gives. A page for people in its place is the registry's mistake, or there is no registry.

        Whatever was read before tells a registry as well as ``/v2/`` does, which not all of them serve.
        """
        try:
            found = ask()
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
            return  # what answered first is told
        self._is_registry = True

    def session(self) -> requests.Session:
        """A ``requests`` session over the same connections and tokens; redirects are followed by ``requests``."""
        from registry_sync.oci.session import open_session

        transport = self._transport
        return open_session(transport, self._authenticator)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
