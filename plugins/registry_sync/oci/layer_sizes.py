"""Sizes of layers that a manifest does not tell (Docker's schema 1), asked of the registry.

Follows the distribution specification, "Checking if content exists in the registry".
"""

from __future__ import annotations

from registry_sync.domain.digests import Digest
from registry_sync.domain.references import RepositoryName
from registry_sync.errors import InvalidManifest, LimitExceeded, NotFound, ProtocolError, RegistryError
from registry_sync.oci.answer_errors import Occasion
from registry_sync.oci.answers import Answer
from registry_sync.oci.requester import Requester


def layer_size_bytes(requester: Requester, repository: RepositoryName, layer: Digest, most_bytes: int) -> int:
    """The size by HEAD, or by a GET that is broken off where HEAD does not tell.

    Raises :class:`InvalidManifest` when the registry lacks the layer, which says nothing about the manifest that names
    it; :class:`LimitExceeded`, :class:`ProtocolError`, and what requests raise.
    """
    occasion = Occasion("blob", repository, layer)
    target = requester.target(f"/v2/{repository}/blobs/{layer}")
    requester.usage.add("head_count")
    try:
        try:
            size = requester.ask("HEAD", target, occasion, {}, _declared)
        except NotFound:
            raise
        except RegistryError as problem:
            # A location that was signed for a GET alone refuses it.
            if problem.is_temporary:
                raise
            size = None
        if size is None:
            size = requester.ask("GET", target, occasion, {}, _declared)
    except NotFound as problem:
        raise InvalidManifest(
            f"{problem.host} lacks layer {layer}, so that its size cannot be told", digest=layer
        ) from problem
    if size is None:
        host = target.origin.netloc
        raise ProtocolError(
            f"{host} does not tell the size of layer {layer}", host=host, repository=repository, url=target.url
        )
    if size > most_bytes:
        raise LimitExceeded(f"layer {layer} has more than {most_bytes} bytes", digest=layer, limit="blob_bytes")
    return size


def _declared(answer: Answer) -> int | None:
    answer.discard()
    return answer.content_length
