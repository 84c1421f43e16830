"""A look-alike at work: a registry, its token service and its storage host, at three addresses of loopback."""

from __future__ import annotations

import gzip
import re
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

from registry_sync.domain.digests import Digest
from registry_sync.domain.known_registries import DigestList
from registry_sync.domain.remote import RemoteSpec
from registry_sync.oci.auth.credentials import Credentials
from registry_sync.oci.client import RegistryClient
from registry_sync.oci.http.options import ClientOptions
from support.certificates import ServerCertificate
from support.hostile_registry import HostileRegistry, Raw, Request, errors_reply, json_reply, reply
from support.images import RepositoryContent
from support.lookalikes.digest_lists import DigestLister
from support.lookalikes.manifests import ManifestDesk, config_digest
from support.lookalikes.quirks import PASSWORD, Habit, LookAlike
from support.lookalikes.storage import SignedStorage, blob_reply
from support.lookalikes.tag_pages import TagLister
from support.lookalikes.tokens import Gate
from support.lookalikes.witness import Witness

#: Where registry, token service and storage are; a certificate must be for all three.
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
_ROUTES = (
    re.compile(r"/v2/(?P<name>.+)/(?P<kind>tags)/(?P<reference>list)"),
    re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|referrers)/(?P<reference>[^/]+)"),
)


class LookAlikeServer:
    """Runs between ``with`` and its end, and serves ``content`` as ``kind`` says.

    ``manifests`` counts pulls and HEADs; ``digests`` has the requests for its list of digests; ``referrers_asked`` are
    the subjects whose referrers were requested; ``witness`` has what a good client does not do. With ``is_gone`` the
    repository is as if it had never been.
    """

    is_gone = False

    def __init__(self, kind: LookAlike, content: RepositoryContent, certificate: ServerCertificate) -> None:
        self.kind = kind
        self.witness = Witness()
        self._ca_path = certificate.ca_path
        pair = (str(certificate.chain_path), str(certificate.key_path))
        responses = (self._answer, self._answer_for_tokens, self._answer_from_storage)
        self.registry, self.tokens, self.storage = (
            HostileRegistry(pair, host=host, otherwise=response)
            for host, response in zip(HOSTS, responses, strict=True)
        )
        realm_host = self.tokens if kind.auth.realm_is_elsewhere else self.registry
        self.gate = Gate(kind, f"{realm_host.base}{kind.auth.realm}", self.witness)
        self.digests = DigestLister(kind, self.gate, self.witness)
        self._running = ExitStack()
        self.serve(content)

    def serve(self, content: RepositoryContent) -> None:
        """Has ``content`` from now on, and forgets the counts of the previous content."""
        self._content = content
        self.manifests = ManifestDesk(self.kind, content, self.witness)
        self._lister = TagLister(self.kind, content, self.registry.base, self.witness)
        self._signed = SignedStorage(content, self.witness)
        self.referrers_asked: list[str] = []
        self._configs = {config_digest(manifest) for manifest in content.manifests.values()}

    def __enter__(self) -> LookAlikeServer:
        for server in (self.registry, self.tokens, self.storage):
            self._running.enter_context(server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    @property
    def url(self) -> str:
        """The registry's address, for a remote."""
        return self.registry.base

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection that opens it; without a user where anonymous readers are let in."""
        extra: dict[str, Any] = {"ca_certificate": self._ca_path.read_text()}
        if self.kind.auth.realm_is_elsewhere:
            extra["trusted_realm_hosts"] = self.tokens.netloc
        opened = {"conn_type": "registry", "host": self.url, "extra": extra}
        if not self.kind.auth.takes_anonymous:
            opened |= {"login": self.kind.auth.username, "password": PASSWORD}
        return opened

    def client(self, remote: RemoteSpec, **options: Any) -> RegistryClient:
        """A client as one is made by :attr:`connection`, with short waits; ``options`` are laid over its own.

        It asks the registry's own list of digests, also one that takes a setting.
        """
        auth = self.kind.auth
        usual = ClientOptions(
            verify=str(self._ca_path),
            trusted_realm_hosts=frozenset({self.tokens.netloc}),
            max_attempts=2,
            longest_wait_seconds=2,
            digest_list=self.kind.digests.source or DigestList.AUTO,
            digest_list_url=self.storage.base if self.kind.digests.is_elsewhere else None,
        )
        credentials = None if auth.takes_anonymous else Credentials(username=auth.username, password=PASSWORD)
        return RegistryClient(remote.url, credentials, replace(usual, **options))

    def forget(self) -> None:
        """Forgets the counts so far; violations stay."""
        self.manifests.pulled.clear()
        self.manifests.headed.clear()
        self.digests.requests.clear()
        self.referrers_asked.clear()

    def _answer_for_tokens(self, request: Request) -> Raw:
        self.witness.see(request, "token service")
        return self.gate.exchange(request)

    def _answer_from_storage(self, request: Request) -> Raw:
        if (listed := self.digests.response(request, self._content, is_elsewhere=True)) is not None:
            return listed
        if request.path.startswith("/no-referrers/"):
            return self._referrers_elsewhere(request)
        above = self.kind.sends_on_to
        if above is not None and request.path.startswith(f"/v2{above}/"):
            return self._answer_as_upstream(request, request.path.removeprefix(f"/v2{above}"))
        return self._signed.response(request)

    def _answer_as_upstream(self, request: Request, path: str) -> Raw:
        """The registry behind one that only redirects: it lets everybody in, and knows no tokens of the other."""
        self.witness.see(request, "registry behind")
        if request.header("authorization") is not None:
            self.witness.note("Authorization sent to the registry behind")
        route = next((found for pattern in _ROUTES if (found := pattern.fullmatch(f"/v2{path}"))), None)
        if route is None or route["name"] != self.kind.repository or self.is_gone:
            return errors_reply(404, "NAME_UNKNOWN", "repository not found")
        if route["kind"] == "referrers" and self.kind.referrers.status != 200:
            return self.manifests.no_referrers()
        return self._content_answer(request, route["kind"], route["reference"])

    def _referrers_elsewhere(self, request: Request) -> Raw:
        """What a host that is no registry makes of the question for referrers."""
        self.witness.see(request, "other host")
        if request.header("authorization") is not None:
            self.witness.note("Authorization sent to the other host")
        referrers = self.kind.referrers
        if referrers.page is None:
            return self.manifests.no_referrers()
        self.witness.met(Habit.LACKS_REFERRERS)
        return reply(referrers.status, referrers.page, content_type="text/html; charset=utf-8")

    def _answer(self, request: Request) -> Raw:
        self.witness.see(request, "registry")
        if not self.kind.auth.realm_is_elsewhere and request.path == self.kind.auth.realm.partition("?")[0]:
            return self.gate.exchange(request)
        if (listed := self.digests.response(request, self._content, is_elsewhere=False)) is not None:
            return listed
        if request.path == "/v2/":
            return json_reply({}) if self.gate.admits(request, None) else self.gate.challenge(None)
        route = next((found for pattern in _ROUTES if (found := pattern.fullmatch(request.path))), None)
        if route is None or request.method not in ("GET", "HEAD"):
            self.witness.note(f"{request.method} {request.path} is nothing that this registry has")
            return reply(400, "no such path", content_type="text/plain")
        if route["kind"] == "referrers":
            self.referrers_asked.append(route["reference"])
            if self.kind.referrers.redirect is not None:
                location = f"{self.storage.base}/no-referrers/{route['name']}/{route['reference']}"
                return reply(self.kind.referrers.redirect, b"", [("Location", location)], content_type=None)
        if self.kind.sends_on_to is not None and route["kind"] != "blobs":
            self.witness.met(Habit.SENDS_ON)
            path = request.path.removeprefix("/v2")
            location = f"{self.storage.base}/v2{self.kind.sends_on_to}{path}?rid=0af7651916cd43dd8448eb211c80319c"
            return reply(307, b"", [("Location", location)], content_type=None)
        if route["kind"] == "referrers" and self.kind.referrers.status != 200:
            return self.manifests.no_referrers()
        if not self.kind.auth.guards_ping_only and not self.gate.admits(request, route["name"]):
            return self.gate.challenge(route["name"])
        if self.is_gone or route["name"] != self.kind.repository:
            return self._missing(route["name"])
        return self._content_answer(request, route["kind"], route["reference"])

    def _content_answer(self, request: Request, kind: str, reference: str) -> Raw:
        if kind == "tags":
            return self._lister.response(request)
        if kind == "blobs":
            return self._blob(request, reference)
        if kind == "referrers":
            return self.manifests.referrers(reference)
        given = self.manifests.response(request, reference)
        refusal = self.kind.manifests.head_refusal
        if refusal is None or (manifest := self.manifests.named(reference)) is None:
            return given
        location = f"{self.storage.base}{self._signed.sign_manifest(manifest, refusal)}"
        return reply(307, b"", [("Location", location)], content_type=None)

    def _missing(self, repository: str) -> Raw:
        missing = self.kind.missing
        if missing.status == 401:
            return self.gate.challenge(repository, error="insufficient_scope" if missing.is_about_scope else None)
        return errors_reply(missing.status, missing.code, missing.message)

    def _blob(self, request: Request, reference: str) -> Raw:
        blob = self._content.blobs.get(Digest(reference))
        if blob is None:
            return errors_reply(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.kind.blobs.redirect is not None:
            self.witness.met(Habit.REDIRECTS)
            location = f"{self.storage.base}{self._signed.sign(blob.digest)}"
            return reply(self.kind.blobs.redirect, b"", [("Location", location)], content_type=None)
        if self.kind.blobs.gzips_configs and blob.digest in self._configs:
            self.witness.met(Habit.COMPRESSES_CONFIGS)
            return reply(200, gzip.compress(blob.data), [("Content-Encoding", "gzip")])
        return blob_reply(request, blob.data, ("Docker-Content-Digest", blob.digest))
