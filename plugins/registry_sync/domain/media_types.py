"""Media types of manifests and layers (OCI image specification, media-types.md; Docker image manifest v2)."""

from __future__ import annotations

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

#: Manifests that list other manifests.
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
#: Manifests with a config and layers.
IMAGE_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
#: Docker image manifest version 2, schema 1: no sizes, signed by rewriting; not read unless enabled.
SCHEMA1_TYPES = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
MANIFEST_TYPES = INDEX_TYPES | IMAGE_TYPES | SCHEMA1_TYPES | {OCI_ARTIFACT}
#: Sent as ``Accept`` for manifests, on GET and HEAD alike; without it a registry may convert.
ACCEPTED_MANIFEST_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT)
#: ``Content-Type`` values that say nothing about a manifest; storage hosts and proxies send them.
GENERIC_TYPES = frozenset({"", "text/plain", "application/json", "application/octet-stream", "binary/octet-stream"})


def normalise(value: str | None) -> str:
    """A ``Content-Type`` without parameters, in lower case; empty for None (RFC 9110 section 8.3.1)."""
    return (value or "").partition(";")[0].strip().lower()


def is_foreign_layer(media_type: str) -> bool:
    """Whether a layer's bytes are not meant to be distributed by registries (image specification, layer.md)."""
    return ".nondistributable." in media_type or ".foreign." in media_type
