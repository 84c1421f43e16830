"""Signatures, attestations and bills of material of images, as the tools that make them lay them down in a registry.

Cosign's tags and sigstore bundles (cosign, specs/SIGNATURE_SPEC.md and BUNDLE_SPEC.md), Notation's signatures (Notary
Project, signature-specification.md), BuildKit's attestations, SPDX documents. What is signed is signed with a key that
is here, so that a test can verify it in another place.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry_sync.domain import media_types
from registry_sync.domain.digests import Digest
from registry_sync.domain.references import fallback_tag
from support.images import EMPTY_CONFIG, BuiltManifest, ContentBuilder, RepositoryContent

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
NOTATION = "application/vnd.cncf.notary.signature"
JOSE, COSE = "application/jose+json", "application/cose"
SPDX = "application/spdx+json"
BUILDKIT_ATTESTATION = "application/vnd.docker.attestation.manifest.v1+json"

#: The same key and nonce-free signatures each time, so that content is the same each time.
KEY = Ed25519PrivateKey.from_private_bytes(b"a key of tests, known to anyone.")


class Signer:
    """Adds to the content of ``build`` what belongs to manifests that were built there; each gives its digest."""

    def __init__(self, build: ContentBuilder) -> None:
        self._build = build

    # -- cosign's tags -------------------------------------------------------------------------------------------

    def cosign_signature(self, of: Digest) -> Digest:
        """``sha256-<hex>.sig``: an image whose layer is what was signed, the signature in its annotations."""
        payload = _compact(
            {
                "critical": {
                    "identity": {"docker-reference": ""},
                    "image": {"docker-manifest-digest": of},
                    "type": "cosign container image signature",
                },
                "optional": None,
            }
        )
        signature = base64.b64encode(KEY.sign(payload)).decode()
        return self._tagged(of, ".sig", payload, SIMPLE_SIGNING, {SIGNATURE_ANNOTATION: signature})

    def cosign_attestation(self, of: Digest) -> Digest:
        """``sha256-<hex>.att``: an image whose layer is a signed statement."""
        statement = envelope(of, "https://slsa.dev/provenance/v1")
        return self._tagged(of, ".att", statement, DSSE, {"predicateType": "https://slsa.dev/provenance/v1"})

    def cosign_sbom(self, of: Digest) -> Digest:
        """``sha256-<hex>.sbom``: an image whose layer is a bill of material."""
        return self._tagged(of, ".sbom", spdx_document(of), "text/spdx+json", {})

    def _tagged(self, of: Digest, suffix: str, data: bytes, media_type: str, annotations: Mapping[str, str]) -> Digest:
        build = self._build
        layer = build.blob_of(data)
        config = build.blob_of(
            _compact(
                {
                    "architecture": "",
                    "created": "0001-01-01T00:00:00Z",
                    "history": [{"created": "0001-01-01T00:00:00Z"}],
                    "os": "",
                    "rootfs": {"type": "layers", "diff_ids": [layer]},
                    "config": {},
                }
            )
        )
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": build.descriptor(config, media_types.OCI_CONFIG),
            "layers": [build.descriptor(layer, media_type, annotations=dict(annotations))],
        }
        digest = build.manifest(document, media_types.OCI_MANIFEST, blobs=(config, layer))
        build.tag(f"{fallback_tag(of)}{suffix}", digest)
        return digest

    # -- artifacts that refer to what they speak of --------------------------------------------------------------

    def bundle(self, of: Digest) -> Digest:
        """A sigstore bundle, as cosign 3 makes it."""
        data = _compact(
            {
                "mediaType": BUNDLE,
                "verificationMaterial": {},
                "dsseEnvelope": json.loads(envelope(of, "cosign/sign/v1")),
            }
        )
        annotations = {"dev.sigstore.bundle.content": "dsse-envelope", "org.opencontainers.image.created": "2026-01-01"}
        return self._referrer(of, data, BUNDLE, artifact_type=BUNDLE, annotations=annotations)

    def notation(self, of: Digest, *, is_cose: bool = False) -> Digest:
        """Notation's signature: JOSE, whose type is its config's, or COSE, whose type is its own."""
        annotations = {
            "io.cncf.notary.x509chain.thumbprint#S256": '["9f5f5aecee24b5cfdc7a91f6d5ac5c3a5348feb17c934d40"]'
        }
        signed = _compact({"targetArtifact": self._build.descriptor(of)})
        if is_cose:
            return self._referrer(of, KEY.sign(signed), COSE, artifact_type=NOTATION, annotations=annotations)
        protected, payload = (
            _base64url(b'{"alg":"EdDSA","cty":"application/vnd.cncf.notary.payload.v1+json"}'),
            _base64url(signed),
        )
        signature = _base64url(KEY.sign(f"{protected}.{payload}".encode()))
        data = _compact({"payload": payload, "protected": protected, "header": {}, "signature": signature})
        return self._referrer(of, data, JOSE, config_type=NOTATION, annotations=annotations)

    def sbom(self, of: Digest) -> Digest:
        """An SPDX document as an artifact."""
        return self._referrer(of, spdx_document(of), SPDX, artifact_type=SPDX)

    def attestation_artifact(self, of: Digest) -> Digest:
        """BuildKit's attestation in its newer form; the index that lists it also says what it attests."""
        data = _compact(_statement(of, "https://slsa.dev/provenance/v0.2"))
        return self._referrer(of, data, IN_TOTO, artifact_type=BUILDKIT_ATTESTATION)

    def _referrer(
        self,
        of: Digest,
        data: bytes,
        layer_type: str,
        *,
        artifact_type: str | None = None,
        config_type: str = media_types.OCI_EMPTY,
        annotations: Mapping[str, str] | None = None,
    ) -> Digest:
        build = self._build
        config, layer = build.blob_of(EMPTY_CONFIG), build.blob_of(data)
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST}
        if artifact_type is not None:
            document["artifactType"] = artifact_type
        document |= {
            "config": build.descriptor(config, config_type),
            "layers": [build.descriptor(layer, layer_type)],
            "subject": build.descriptor(of),
        }
        if annotations:
            document["annotations"] = dict(annotations)
        return build.manifest(document, media_types.OCI_MANIFEST, blobs=(config, layer))


def envelope(of: Digest, predicate_type: str) -> bytes:
    """A signed statement about ``of`` (DSSE, protocol.md)."""
    payload = _compact(_statement(of, predicate_type))
    signature = base64.b64encode(KEY.sign(pre_authentication(IN_TOTO, payload))).decode()
    return _compact(
        {
            "payloadType": IN_TOTO,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": "", "sig": signature}],
        }
    )


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that a DSSE signature is over."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def spdx_document(of: Digest) -> bytes:
    """A bill of material of ``of``."""
    return _compact({"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": of, "packages": []})


# -- how registries and clients find what refers to a manifest ---------------------------------------------------


def subject_of(manifest: BuiltManifest) -> str | None:
    """The digest that a manifest refers to; None for most."""
    subject = json.loads(manifest.data).get("subject")
    return None if subject is None else str(subject["digest"])


def referrer_entry(manifest: BuiltManifest) -> dict[str, Any]:
    """A referrer's entry in a list of referrers (distribution specification, "Listing Referrers")."""
    document = json.loads(manifest.data)
    entry = {"mediaType": manifest.media_type, "digest": str(manifest.digest), "size": len(manifest.data)}
    artifact_type = document.get("artifactType") or document.get("config", {}).get("mediaType")
    if artifact_type:
        entry["artifactType"] = artifact_type
    if "annotations" in document:
        entry["annotations"] = document["annotations"]
    return entry


def with_fallback_tags(content: RepositoryContent) -> RepositoryContent:
    """``content`` as clients push it to a registry without the referrers API: an index for each subject, under its tag.

    A subject that is missing gets one too.
    """
    referrers: dict[str, list[BuiltManifest]] = {}
    for manifest in content.manifests.values():
        if (subject := subject_of(manifest)) is not None:
            referrers.setdefault(subject, []).append(manifest)
    tags, manifests = dict(content.tags), dict(content.manifests)
    for subject, found in referrers.items():
        document = {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_INDEX,
            "manifests": [referrer_entry(manifest) for manifest in found],
        }
        data = json.dumps(document).encode()
        digest = Digest.of(data)
        children = tuple(manifest.digest for manifest in found)
        manifests[digest] = BuiltManifest(digest, media_types.OCI_INDEX, data, children)
        tags[fallback_tag(Digest(subject))] = digest
    return RepositoryContent(tags, manifests, content.blobs)


def with_companions(content: RepositoryContent, names: Iterable[str]) -> RepositoryContent:
    """The part that these tags reach, and all that belongs to it: what refers to it, and what is tagged for it.

    Also what belongs to that, and so on: the signature of a bill of material.
    """
    tags = {name: content.tags[name] for name in names}
    roots = set(tags.values())
    while True:
        reached = content.below(roots)
        belonging = {fallback_tag(digest) for digest in reached}
        tags |= {name: digest for name, digest in content.tags.items() if name.partition(".")[0] in belonging}
        found = {digest for digest, manifest in content.manifests.items() if subject_of(manifest) in reached}
        if roots >= found | set(tags.values()):
            return content.part(tags, roots)
        roots |= found | set(tags.values())


def _statement(of: Digest, predicate_type: str) -> dict[str, Any]:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "app", "digest": {of.algorithm: of.encoded}}],
        "predicateType": predicate_type,
        "predicate": {},
    }


def _compact(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
