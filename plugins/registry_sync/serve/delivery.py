"""How the bytes of a stored blob reach a client: from this server, from the object store, or from nginx in front of it.

Only a GET is answered elsewhere, and only after access, version and stored size were checked here. A signed URL lets
whoever has it read one blob until it ends, so it is neither logged nor cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from registry_sync.blobs.layout import blob_name
from registry_sync.blobs.local import LocalBlobStore
from registry_sync.blobs.store import BlobStore
from registry_sync.domain.digests import Digest
from registry_sync.domain.serving import DEFAULT_URL_SECONDS, BlobDelivery
from registry_sync.errors import ConfigurationError
from registry_sync.serve.replies import Reply

if TYPE_CHECKING:
    from registry_sync.blobs.object_store import FsspecBlobStore

#: The internal location of nginx below which the folder of the blob store lies.
NGINX_LOCATION = "/registry-sync-blobs/"
#: What nginx says in ``X-Sendfile-Type`` of a request, so that a client that comes past it still gets bytes.
_NGINX_TYPE = "X-Accel-Redirect"


class Delivery:
    """What ``how`` means for ``store``. Raises :class:`ConfigurationError` where the store does not allow it.

    ``url_seconds`` is how long a signed URL can be used.
    """

    def __init__(
        self,
        store: BlobStore,
        how: BlobDelivery = BlobDelivery.DIRECT,
        url_seconds: int = DEFAULT_URL_SECONDS,
    ) -> None:
        self._how = how
        self._url_seconds = url_seconds
        self._signing: FsspecBlobStore | None = None
        is_folder = isinstance(store, LocalBlobStore)
        if how is BlobDelivery.NGINX and not is_folder:
            raise ConfigurationError(
                "[registry_sync] blob_delivery is nginx, which sends files of a folder, and blob_store is none: "
                "choose redirect or direct"
            )
        if how is BlobDelivery.REDIRECT:
            if is_folder:
                raise ConfigurationError(
                    "[registry_sync] blob_delivery is redirect, which needs an object store, and blob_store is a "
                    "folder: choose nginx or direct"
                )
            self._signing = cast("FsspecBlobStore", store)
            self._signing.signed_url(Digest.of(b""), url_seconds)  # makes no request, and says at once if it cannot

    def sends(self, request_headers: Mapping[str, str]) -> bool:
        """Whether the bytes that a GET asks for are sent from here."""
        if self._how is BlobDelivery.NGINX:
            return request_headers.get("x-sendfile-type") != _NGINX_TYPE
        return self._how is BlobDelivery.DIRECT

    def elsewhere(self, digest: Digest, headers: Mapping[str, str]) -> Reply:
        """The reply to a GET that has the client get elsewhere what would be sent with ``headers``.

        May wait for the object store's driver, so it is not for the event loop.
        """
        if self._signing is not None:
            url = self._signing.signed_url(digest, self._url_seconds)
            return Reply(307, headers={"Location": url, "Cache-Control": "no-store", "Docker-Content-Digest": digest})
        kept = {name: value for name, value in headers.items() if name != "Accept-Ranges"}  # nginx says it itself
        return Reply(200, headers={**kept, _NGINX_TYPE: NGINX_LOCATION + quote(blob_name(digest))})
