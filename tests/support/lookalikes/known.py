"""The registries that a sync must cope with, as look-alikes.

Page sizes are smaller than the real ones where a test could not fill a page otherwise; how they page is theirs.
"""

from __future__ import annotations

from registry_sync.domain.known_registries import DigestList
from support.lookalikes.quirks import (
    Auth,
    BlobAnswers,
    Digests,
    LookAlike,
    ManifestAnswers,
    Referrers,
    Refusal,
    TagPages,
)

_NO_DIGEST: frozenset[str] = frozenset()
_DENIED = Refusal(403, "DENIED", "requested access to the resource is denied")

DOCKER_HUB = LookAlike(
    "docker-hub",
    repository="library/app",
    auth=Auth(realm_is_elsewhere=True, service="registry.docker.io"),
    tags=TagPages(cap=50, keeps_order=True),
    manifests=ManifestAnswers(has_etag=True, counts_pulls=True, is_limited_at_first=True),
    blobs=BlobAnswers(redirect=307),
    digests=Digests(DigestList.DOCKER_HUB, is_elsewhere=True),
    missing=Refusal(401, "UNAUTHORIZED", "authentication required", is_about_scope=True),
)
QUAY = LookAlike(
    "quay",
    auth=Auth(realm="/v2/auth", service="quay.example", names_scope=False),
    tags=TagPages(cap=100),
    manifests=ManifestAnswers(headers=(("Warning", '299 - "pulls by this account will need a token"'),)),
    blobs=BlobAnswers(redirect=302),
    referrers=Referrers(400),
    digests=Digests(DigestList.QUAY, is_asked_by_default=True),
    missing=Refusal(401, "UNAUTHORIZED", "access to the requested resource is not authorized"),
)
QUAY_OF_2022 = LookAlike(
    "quay-of-2022",
    auth=Auth(realm="/v2/auth", service="quay.example", names_scope=False),
    tags=TagPages(cap=50, parameter="next_page", position="opaque"),
    blobs=BlobAnswers(redirect=302),
    digests=Digests(DigestList.QUAY, is_asked_by_default=True),
)
GOOGLE = LookAlike(
    "google",
    repository="project/team/app",
    auth=Auth(realm="/v2/token", service="gcr.example", asks_at_ping_only=True),
    tags=TagPages(cap=10_000, has_manifest_map=True),
    blobs=BlobAnswers(redirect=302),
    missing=_DENIED,
)
ECR = LookAlike(
    "ecr",
    auth=Auth(schemes=("Basic",), username="AWS"),
    tags=TagPages(
        cap=100, refuses_above_cap=True, link="absolute", position="opaque", content_type="text/plain; charset=utf-8"
    ),
    manifests=ManifestAnswers(digest_on=frozenset({"HEAD"})),
    blobs=BlobAnswers(redirect=307),
)
GHCR = LookAlike(
    "ghcr",
    auth=Auth(service="ghcr.example", takes_anonymous=True),
    tags=TagPages(cap=100),
    blobs=BlobAnswers(redirect=307),
    referrers=Referrers(404, redirect=303),
    missing=_DENIED,
)
#: The front of the Kubernetes project: it issues tokens that nobody requests, and redirects to a registry of Google's.
REGISTRY_K8S_IO = LookAlike(
    "registry-k8s-io",
    repository="pause/app",
    auth=Auth(service="registry.k8s.example", takes_anonymous=True, guards_ping_only=True),
    tags=TagPages(cap=10_000, has_manifest_map=True),
    blobs=BlobAnswers(redirect=307),
    sends_on_to="/k8s-artifacts-prod/images",
    missing=Refusal(404, "NAME_UNKNOWN", "repository not found"),
)
GITLAB = LookAlike(
    "gitlab",
    repository="group/project/app",
    auth=Auth(realm="/jwt/auth", realm_is_elsewhere=True, service="container_registry", first_token_requests=60),
    tags=TagPages(cap=50),
    blobs=BlobAnswers(redirect=307),
    referrers=Referrers(404, reads_tag_as_digest=True),
    digests=Digests(DigestList.GITLAB, is_asked_by_default=True),
)
AZURE = LookAlike(
    "azure",
    auth=Auth(realm="/oauth2/token", service="contoso.azurecr.example", token_field="access_token"),
    tags=TagPages(cap=100),
    blobs=BlobAnswers(redirect=307),
    digests=Digests(DigestList.AZURE),
)
HARBOR = LookAlike(
    "harbor",
    auth=Auth(realm="/service/token?tenant=1", service="harbor-registry", bearer_requests=40),
    tags=TagPages(cap=50),
    referrers=Referrers(401),
    digests=Digests(DigestList.HARBOR),
    missing=Refusal(404, "UNKNOWN", "not found"),
)
NEXUS = LookAlike(
    "nexus",
    auth=Auth(schemes=("Basic", "Bearer"), realm="/v2/token", exchange_status=404, service="nexus"),
    tags=TagPages(cap=100, link="connector", odd_names=(None, None)),
)
NEXUS_GROUP = LookAlike("nexus-group", auth=Auth(schemes=("Basic",)), tags=TagPages(cap=100, link="none"))
ARTIFACTORY = LookAlike(
    "artifactory",
    repository="docker/team/app",
    auth=Auth(
        schemes=("Bearer", "Basic"), realm="/v2/token", service="artifactory.example", token_field="access_token"
    ),
    tags=TagPages(cap=100, link="shortened", position="number", odd_names=("sha256:" + "0123456789abcdef" * 4,)),
    manifests=ManifestAnswers(digest_on=frozenset({"GET"}), content_type="application/octet-stream"),
    blobs=BlobAnswers(redirect=302),
    referrers=Referrers(406),
)
RED_HAT = LookAlike(
    "red-hat",
    auth=Auth(realm="/auth/realms/rhcc/protocol/docker", realm_is_elsewhere=True, service="docker-registry"),
    tags=TagPages(cap=50),
    manifests=ManifestAnswers(digest_on=_NO_DIGEST, content_type="text/plain; charset=utf-8"),
    blobs=BlobAnswers(gzips_configs=True),
    missing=Refusal(404, "UNKNOWN", "Not Found"),
)
ZOT = LookAlike(
    "zot",
    auth=Auth(schemes=("Basic",)),
    tags=TagPages(cap=50, vanishes_once=True),
    referrers=Referrers(200),
    digests=Digests(DigestList.ZOT),
)
DISTRIBUTION = LookAlike(
    "distribution",
    auth=Auth(realm="/auth", realm_is_elsewhere=True, service="registry"),
    tags=TagPages(cap=100),
    manifests=ManifestAnswers(has_etag=True, heeds_accept=True),
)
PULP = LookAlike(
    "pulp",
    auth=Auth(realm="/token/", service="pulp.example"),
    tags=TagPages(cap=100),
    manifests=ManifestAnswers(headers=(("X-Registry-Supports-Signatures", "1"),)),
    blobs=BlobAnswers(redirect=302),
)

#: No registry of a name: one whose manifests are objects of a store, signed for GET.
SIGNING = LookAlike("signing", blobs=BlobAnswers(redirect=307), manifests=ManifestAnswers(head_refusal=403))

#: All of them.
KNOWN = (
    DOCKER_HUB,
    QUAY,
    QUAY_OF_2022,
    GOOGLE,
    ECR,
    GHCR,
    REGISTRY_K8S_IO,
    GITLAB,
    AZURE,
    HARBOR,
    NEXUS,
    NEXUS_GROUP,
    ARTIFACTORY,
    RED_HAT,
    ZOT,
    DISTRIBUTION,
    PULP,
)
