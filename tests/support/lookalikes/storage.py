"""The storage host behind a registry: signed URLs that are good once, as they were written, and without credentials."""

from __future__ import annotations

import itertools
import re
import threading

from registry_sync.domain.digests import Digest
from support.hostile_registry import Raw, Request, reply
from support.images import BuiltManifest, RepositoryContent
from support.lookalikes.quirks import Habit
from support.lookalikes.witness import Witness

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)")


class SignedStorage:
    """Hands out ``content``'s blobs by URLs that it signed itself."""

    def __init__(self, content: RepositoryContent, witness: Witness) -> None:
        self._content = content
        self._witness = witness
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._open: dict[str, Digest] = {}
        self._manifests: dict[str, tuple[BuiltManifest, int]] = {}

    def sign(self, digest: Digest) -> str:
        """Path and query for one download. Characters are encoded here and there, as signers do it."""
        number = next(self._numbers)
        path = f"/bucket/{digest.algorithm}%3A{digest.encoded}"
        target = f"{path}?X-Amz-Date=20260101T000000Z&X-Amz-Signature=a%2Fb%7Ec~%2d|{number:04x}&type=app%2foctet"
        with self._lock:
            self._open[target] = digest
        return target

    def sign_manifest(self, manifest: BuiltManifest, head_refusal: int) -> str:
        """Path and query for one GET of ``manifest``; a HEAD of it is refused with that status."""
        target = f"/bucket/manifests/{manifest.digest.encoded}?X-Amz-Signature={next(self._numbers):04x}"
        with self._lock:
            self._manifests[target] = manifest, head_refusal
        return target

    def _manifest_reply(self, request: Request) -> Raw | None:
        with self._lock:
            signed = self._manifests.pop(request.target, None)
        if signed is None:
            return None
        manifest, head_refusal = signed
        if request.method == "HEAD":
            self._witness.met(Habit.SIGNS_FOR_GET)
            return reply(head_refusal, "<Error><Code>SignatureDoesNotMatch</Code></Error>")
        return reply(200, manifest.data, content_type=manifest.media_type)

    def response(self, request: Request) -> Raw:
        """The blob; 400 with credentials, 403 for what was not signed so, or was used before."""
        self._witness.see(request, "storage host")
        if request.header("authorization") is not None:
            self._witness.note("Authorization sent to the storage host")
            return reply(400, "<Error><Code>InvalidArgument</Code></Error>", content_type="application/xml")
        if (manifest := self._manifest_reply(request)) is not None:
            return manifest
        with self._lock:
            digest = self._open.pop(request.target, None)
        if digest is None:
            self._witness.note(f"a URL that was not signed so, or twice: {request.target}")
            return reply(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>", content_type="application/xml")
        return blob_reply(request, self._content.blobs[digest].data)


def blob_reply(request: Request, data: bytes, *headers: tuple[str, str]) -> Raw:
    """A blob, or the part of it that ``Range`` requests."""
    asked = _RANGE.fullmatch(request.header("range") or "")
    kind = "application/octet-stream"
    if asked is None:
        return reply(200, data, [("Accept-Ranges", "bytes"), *headers], content_type=kind)
    first, last = int(asked[1]), int(asked[2] or len(data) - 1)
    if first >= len(data):
        return reply(416, b"", [("Content-Range", f"bytes */{len(data)}")])
    part = data[first : last + 1]
    content_range = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
    return reply(206, part, [("Content-Range", content_range), *headers], content_type=kind)
