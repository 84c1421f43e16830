"""The shapes of repository that tests and benchmarks use, from eight tags to three thousand.

``scale`` multiplies the sizes of layers, never the counts, so that a test gets a large repository of few bytes.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

from registry_sync.domain.digests import Digest
from support.images import ContentBuilder, RepositoryContent
from support.signatures import BUILDKIT_ATTESTATION, Signer


def documented_example() -> RepositoryContent:
    """8 tags, 21 manifests (5 of them lists), 31 blobs of 18 KB: like ``hello-world``, and Pulp's documented sync."""
    build = ContentBuilder(seed=1)
    shared_layer = build.blob(600)
    images = [build.image([shared_layer], docker=True, config_padding_bytes=260)]
    images += [build.image([shared_layer], docker=True, config_padding_bytes=260, architecture="arm64")]
    images += [
        build.image([build.blob(600)], docker=True, config_padding_bytes=260, architecture=f"arch{number}")
        for number in range(14)
    ]
    linux, windows, alone = images[:9], images[9:12], images[12:]
    latest = build.index(linux + windows, docker=True)
    linux_only = build.index(linux, docker=True)
    windows_only = build.index(windows, docker=True)
    one, other = build.index([windows[0]], docker=True), build.index([windows[1], alone[3]], docker=True)
    tags = {"latest": latest, "linux": linux_only, "nanoserver": windows_only, "nanoserver1709": one}
    tags |= {"nanoserver-sac2016": other, "v1": alone[0], "v2": alone[1], "v3": alone[2]}
    for name, digest in tags.items():
        build.tag(name, digest)
    return build.content()


def application(scale: float = 1.0, *, releases: int = 60) -> RepositoryContent:
    """60 releases and latest of two platforms with attestations; base layers are shared by neighbouring releases.

    61 tags, 300 manifests, 614 blobs of 160 MB at scale 1. Each release is one tag, five manifests and six
    configs, statements and layers of its own; 14 base layers are shared.
    """
    build = ContentBuilder(seed=2)
    bases = {platform: [build.blob(_scaled(5_400_000, scale)) for _ in range(7)] for platform in ("amd64", "arm64")}
    for release in range(releases):
        newest = release * 6 // releases
        images = [
            build.image(
                [*layers[newest : newest + 2], *(build.blob(_scaled(350_000, scale)) for _ in range(2))],
                architecture=platform,
                config_padding_bytes=1500,
            )
            for platform, layers in bases.items()
        ]
        attestations = [build.attestation(image, 1500) for image in images]
        entries = {
            attestation: build.attestation_entry(image) for attestation, image in zip(attestations, images, strict=True)
        }
        digest = build.index([*images, *attestations], descriptors=entries)
        build.tag(f"1.{release}.0", digest)
        build.tag("latest", digest)
    return build.content()


def wide(scale: float = 1.0, *, tags: int = 400) -> RepositoryContent:
    """400 tags on 400 images of three layers each that share nothing: 1600 blobs of 11 MB at scale 1."""
    build = ContentBuilder(seed=3)
    for number in range(tags):
        build.tag(f"build-{number}", build.image([build.blob(_scaled(8_900, scale)) for _ in range(3)]))
    return build.content()


def many_tags(tags: int = 3000, images: int = 300) -> RepositoryContent:
    """3000 tags on 300 images that share a layer: 601 blobs of 0.7 MB."""
    build = ContentBuilder(seed=4)
    shared = build.blob(2_000)
    digests = [build.image([shared, build.blob(1_900)]) for _ in range(images)]
    for number in range(tags):
        build.tag(f"nightly-{number:04}", digests[number % images])
    return build.content()


def big(scale: float = 1.0) -> RepositoryContent:
    """4 tags, 4 manifests, 12 blobs, eight of them of 128 MiB at scale 1."""
    build = ContentBuilder(seed=5)
    for number in range(4):
        build.tag(f"model-{number}", build.image([build.blob(_scaled(128 * 1024 * 1024, scale)) for _ in range(2)]))
    return build.content()


def nested() -> RepositoryContent:
    """1 tag, 8 manifests, 8 blobs: an index of an index of indexes, with images on every level."""
    build = ContentBuilder(seed=6)
    images = [build.image([build.blob(300)]) for _ in range(4)]
    inner = [build.index(images[:1]), build.index(images[1:3])]
    middle = build.index(inner)
    build.tag("latest", build.index([middle, images[3]]))
    return build.content()


def every_kind(*, artifact_manifest: bool = False, seed: int = 7, releases: int = 0) -> RepositoryContent:
    """One tag for each kind of content: images and lists of both makers, no layers, an empty layer, artifacts, …

    ``artifact_manifest`` adds the artifact manifest type, which Debian's registry does not take. ``releases`` is how
    many more tags there are, on a handful of images. Another ``seed`` gives other manifests and blobs, all but the
    two blobs that are the same everywhere: the empty one and ``{}``.
    """
    build = ContentBuilder(seed)
    layers = [build.blob(500), build.blob(700)]
    docker, oci = build.image(layers, docker=True), build.image(layers)
    build.tag("docker-image", docker)
    build.tag("oci-image", oci)
    build.tag("docker-list", build.index([docker], docker=True))
    build.tag("oci-index", build.index([oci, docker]))
    build.tag("no-layers", build.image([]))
    build.tag("empty-layer", build.image([build.blob_of(b"")]))
    build.tag("empty-index", build.index([], extra={"annotations": {"org.example.seed": str(seed)}}))
    build.tag("artifact", build.artifact([build.blob(300)]))
    build.tag("referrer", build.image([layers[0]], extra={"subject": build.descriptor(oci)}))
    build.tag("untyped", build.image([layers[0]], extra={"mediaType": None}))
    build.tag("annotated", build.image([layers[1]], extra={"annotations": {"org.example.name": "annotated"}}))
    attestation = build.attestation(oci)
    build.tag("attested", build.index([oci, attestation], descriptors={attestation: build.attestation_entry(oci)}))
    build.tag("nested", build.index([build.index([build.index([oci])])]))
    if artifact_manifest:
        build.tag("artifact-manifest", build.artifact_manifest([build.blob(200)], subject=oci))
    released = [build.image([layers[0], build.blob(300)]) for _ in range(min(releases, 5))]
    for number in range(releases):
        build.tag(f"release-{number * 7 % releases:03}", released[number % len(released)])
    return build.content()


def signed_application(seed: int = 8) -> RepositoryContent:
    """Tags ``1.0`` and ``2.0``, each an index of two platforms with attestations of both forms, signed in every way.

    Cosign's ``.sig``, ``.att`` and ``.sbom`` tags, for an index and for a child. Untagged referrers: a sigstore bundle
    and Notation's signature of the index, Notation's and an SPDX document of a child, and a bundle that signs that
    document. ``with_fallback_tags`` makes of it what a registry without the referrers API is given.
    """
    build = ContentBuilder(seed)
    signer = Signer(build)
    for release in ("1.0", "2.0"):
        images = [build.image([build.blob(400)], architecture=platform) for platform in ("amd64", "arm64")]
        beside, artifact = build.attestation(images[0]), signer.attestation_artifact(images[1])
        entries = {beside: build.attestation_entry(images[0])}
        entries[artifact] = {**build.attestation_entry(images[1]), "artifactType": BUILDKIT_ATTESTATION}
        index = build.index([*images, beside, artifact], descriptors=entries)
        build.tag(release, index)
        for digest in (index, images[0]):
            signer.cosign_signature(digest)
        signer.cosign_attestation(index)
        signer.cosign_sbom(images[1])
        signer.bundle(index)
        signer.notation(index)
        signer.notation(images[0], is_cose=True)
        signer.bundle(signer.sbom(images[1]))
    return build.content()


def any_shape(seed: int) -> RepositoryContent:
    """A small repository whose shape ``seed`` determines, with several tags on one image or index.

    Images share layers, of gzip and zstd, or carry one inline; indexes are nested; there are attestations, artifacts
    and signatures by tag and by subject.
    """
    dice, build = random.Random(seed), ContentBuilder(seed=seed)
    signer = Signer(build)
    layers = [build.blob(dice.choice((1, 64, 900, 3000))) for _ in range(5)]
    images = [build.image(dice.sample(layers, dice.randint(0, 3)), docker=dice.random() < 0.4) for _ in range(4)]
    images.append(build.artifact(dice.sample(layers, 2)))
    zstd = build.descriptor(layers[0], "application/vnd.oci.image.layer.v1.tar+zstd")
    inline = build.descriptor(small := build.blob_of(b"%d" % seed), data=base64.b64encode(b"%d" % seed).decode())
    images.append(build.image([layers[0], small], extra={"layers": [zstd, inline]}))
    indexes: list[Digest] = []
    for _ in range(dice.randint(1, 3)):
        children = dice.sample([*images, *indexes[-1:]], dice.randint(0, 3))
        entries = {}
        if children and dice.random() < 0.5:
            children.append(attestation := build.attestation(children[0]))
            entries[attestation] = build.attestation_entry(children[0])
        indexes.append(build.index(children, docker=dice.random() < 0.3, descriptors=entries))
    roots = [*images, *indexes]
    for number in range(dice.randint(3, 7)):
        build.tag(f"v{number}", dice.choice(roots))
    for of in dice.sample(roots, 3):
        make = dice.choice((signer.bundle, signer.sbom, signer.notation, signer.cosign_signature))
        if dice.random() < 0.5:
            signer.bundle(make(of))
        else:
            make(of)
    return build.content()


def _scaled(size_bytes: int, scale: float) -> int:
    return max(64, int(size_bytes * scale))


#: Every shape by the name under which benchmarks know it, at full size.
SHAPES: dict[str, Callable[[], RepositoryContent]] = {
    "documented_example": documented_example,
    "application": application,
    "wide": wide,
    "many_tags": many_tags,
    "big": big,
    "nested": nested,
}
