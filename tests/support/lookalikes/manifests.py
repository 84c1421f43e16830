"""Manifests and the lists of their referrers, with the headers and types that a registry puts to them."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from support.hostile_registry import Raw, Request, errors_reply, reply
from support.images import BuiltManifest, RepositoryContent
from support.lookalikes.quirks import Habit, LookAlike
from support.lookalikes.witness import Witness, accepted
from support.signatures import referrer_entry, subject_of

_FALLBACK_TAG = re.compile(r"sha256-(?P<hex>[0-9a-f]{64})")
#: How many pulls a registry that counts them allows in six hours.
PULLS_ALLOWED = 5000


class ManifestDesk:
    """Serves the manifests of one repository.

    ``pulled`` are the references that were served (GET), ``headed`` those of HEAD requests.
    """

    def __init__(self, kind: LookAlike, content: RepositoryContent, witness: Witness) -> None:
        self.pulled: list[str] = []
        self.headed: list[str] = []
        self._kind = kind
        self._answers = kind.manifests
        self._content = content
        self._witness = witness
        self._lock = threading.Lock()
        self._get_numbers = itertools.count(1)
        self._denied: str | None = None

    def response(self, request: Request, reference: str) -> Raw:
        """A manifest by tag or digest."""
        self._witness.see_manifest_request(request)
        manifest = self.named(reference)
        if manifest is not None and self._answers.heeds_accept:
            manifest = self._as_accepted(manifest, request, is_by_tag=":" not in reference)
        if manifest is None:
            return errors_reply(404, "MANIFEST_UNKNOWN", f"manifest unknown to registry: {reference}")
        if request.method == "GET" and next(self._get_numbers) == 1 and self._answers.is_limited_at_first:
            self._witness.met(Habit.LIMITS_PULLS)
            return _limited()
        if request.method == "GET" and self._is_denied(reference):
            return errors_reply(403, "DENIED", "requested access to the resource is denied")
        with self._lock:
            (self.pulled if request.method == "GET" else self.headed).append(reference)
        kind = self._answers.content_type or manifest.media_type
        return reply(200, manifest.data, self._headers(request.method, manifest), content_type=kind)

    def referrers(self, subject: str) -> Raw:
        """The list of what refers to ``subject``, by a registry that has the API."""
        self._witness.met(Habit.LISTS_REFERRERS)
        entries = [
            referrer_entry(manifest) for manifest in self._content.manifests.values() if subject_of(manifest) == subject
        ]
        document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": entries}
        return reply(200, json.dumps(document), content_type=media_types.OCI_INDEX)

    def no_referrers(self) -> Raw:
        """The response of a registry without the API: its router or its gate gives it, and neither says more."""
        self._witness.met(Habit.LACKS_REFERRERS)
        status = self._kind.referrers.status
        if status == 404:
            return reply(404, "404 page not found\n", content_type="text/plain; charset=utf-8")
        return errors_reply(status, {400: "MANIFEST_INVALID", 401: "UNAUTHORIZED"}.get(status, "UNSUPPORTED"))

    def named(self, reference: str) -> BuiltManifest | None:
        """The manifest of a tag or digest, None when there is none."""
        digest = self._content.tags.get(reference, reference)
        if ":" in digest:
            return self._content.manifests.get(Digest(digest))
        tag = _FALLBACK_TAG.fullmatch(reference)
        if tag is not None and self._kind.referrers.reads_tag_as_digest:
            return self._content.manifests.get(Digest(f"sha256:{tag['hex']}"))
        return None

    def _is_denied(self, reference: str) -> bool:
        with self._lock:
            if self._denied is None and self._answers.denies_first:
                self._denied = reference
            return reference == self._denied

    def _as_accepted(self, manifest: BuiltManifest, request: Request, *, is_by_tag: bool) -> BuiltManifest | None:
        """What distribution makes of a type that was not requested: another manifest, or none."""
        if manifest.media_type in accepted(request):
            return manifest
        if is_by_tag and manifest.media_type == media_types.DOCKER_LIST:
            return self._content.manifests[manifest.children[0]]
        return None if manifest.media_type in (media_types.OCI_INDEX, media_types.OCI_MANIFEST) else manifest

    def _headers(self, method: str, manifest: BuiltManifest) -> list[tuple[str, str]]:
        headers = [*self._answers.headers, ("Set-Cookie", "seen=1; Path=/")]
        if method in self._answers.digest_on:
            headers.append(("Docker-Content-Digest", manifest.digest))
        if self._answers.has_etag:
            headers.append(("ETag", f'"{manifest.digest}"'))
        if self._answers.counts_pulls:
            headers.append(("ratelimit-limit", f"{PULLS_ALLOWED};w=21600"))
            headers.append(("ratelimit-remaining", f"{PULLS_ALLOWED - len(self.pulled)};w=21600"))
            headers.append(("docker-ratelimit-source", "192.0.2.7"))
        return headers


def config_digest(manifest: BuiltManifest) -> str | None:
    """The digest of its config; None when it has none."""
    config = json.loads(manifest.data).get("config")
    return None if config is None else str(config["digest"])


def _limited() -> Raw:
    """Docker Hub's refusal of too many requests: plain text, and the end of the wait in seconds since 1970."""
    ends_at = int(time.time()) + 2
    return reply(
        429, "Too Many Requests (HAP429).\n", [("Retry-After", str(ends_at))], content_type="text/plain; charset=utf-8"
    )
