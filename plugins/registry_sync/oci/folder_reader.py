"""The reader of a repository in a folder: a sync's stages read an OCI image layout or skopeo's folders through it.

It gives and raises what a registry's client does, without a request: what is counted in a run is what a registry was
asked, here nothing. Bytes are verified as those of a registry are, the manifests here, the blobs by the writer that the
blob store gives. A file that is missing, or whose size or bytes are wrong, concerns the tags that need it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set

from registry_sync.domain.digests import Digest
from registry_sync.domain.manifest_documents import DEFAULT_LIMITS, Descriptor, Manifest, ManifestLimits, read_manifest
from registry_sync.domain.quantities import utc_now
from registry_sync.domain.references import RepositoryName, TagName
from registry_sync.domain.remote import FIRST_CONCURRENCY
from registry_sync.errors import NotFound, SizeMismatch
from registry_sync.oci.blobs import BlobDestination, write_known_bytes
from registry_sync.oci.http.many_heads import HeadsLeft, StartedRequest
from registry_sync.oci.http.rate_limits import Usage
from registry_sync.oci.image_folders import FolderImage, ImageFolder
from registry_sync.oci.manifests import ManifestHead
from registry_sync.oci.tag_digests import TagDigests
from registry_sync.oci.tags import TagListing

CHUNK_BYTES = 1024 * 1024


class FolderReader:
    """Reads ``repository`` of ``folder``, whatever the name that a method is given. Safe to share between threads."""

    def __init__(self, folder: ImageFolder, repository: str, limits: ManifestLimits = DEFAULT_LIMITS) -> None:
        self.usage = Usage()
        self._folder = folder
        self._repository = repository
        self._images = folder.images[repository]
        self._limits = limits

    @property
    def requests_at_once(self) -> int:
        """As many as a registry's client begins with; files come no faster by more."""
        return FIRST_CONCURRENCY

    def list_tags(self, repository: RepositoryName) -> TagListing:  # noqa: ARG002  the folder has one repository
        """All tags of the folder, as they are now."""
        return TagListing(tuple(sorted(self._images)), (), utc_now(), 0)

    @property
    def may_list_digests(self) -> bool:
        """No: a digest costs no request here."""
        return False

    def list_tag_digests(
        self, repository: RepositoryName, tags: Set[TagName], *, most_requests: int
    ) -> TagDigests | None:  # fmt: skip
        """None: a digest costs no request here."""

    def head_manifests(
        self,
        repository: RepositoryName,  # noqa: ARG002  as :class:`RegistryReader`
        tags: Sequence[TagName],
        done: Callable[[TagName, Digest], None],  # noqa: ARG002
        *,
        most: Callable[[], int],  # noqa: ARG002
    ) -> HeadsLeft:
        """All of them are left to :meth:`head_manifest`."""
        return HeadsLeft(waiting=deque(tags))

    def head_manifest(
        self,
        repository: RepositoryName,
        reference: TagName | Digest,
        *,
        started: StartedRequest | None = None,  # noqa: ARG002  none is
    ) -> ManifestHead:
        """What the folder says of a manifest. Raises :class:`NotFound` for a tag that it does not have."""
        if isinstance(reference, Digest):
            manifest = self.get_manifest(repository, reference)
            return ManifestHead(manifest.digest, manifest.media_type, len(manifest.data))
        image = self._image(reference)
        return ManifestHead(image.digest, image.media_type, image.size_bytes)

    def _image(self, tag: TagName) -> FolderImage:
        if tag not in self._images:
            raise NotFound(f"the folder {str(self._folder.root)!r} has no tag {tag}", kind="manifest")
        return self._images[tag]

    def get_manifest(
        self,
        repository: RepositoryName,  # noqa: ARG002  the folder has one repository
        reference: TagName | Digest,
        *,
        expected: Descriptor | None = None,
    ) -> Manifest:
        """The manifest with its exact bytes, verified. Raises :class:`ContentError` where they are missing or wrong."""
        image = None if isinstance(reference, Digest) else self._image(reference)
        digest = reference if isinstance(reference, Digest) else self._image(reference).digest
        with self._folder.open(self._repository, digest) as opened:
            data = opened.read(self._limits.manifest_bytes + 1)
        size = expected.size_bytes if expected is not None else None if image is None else image.size_bytes
        if size is not None and len(data) != min(size, self._limits.manifest_bytes + 1):
            raise SizeMismatch(
                f"manifest {digest} has {len(data):,} bytes in {str(self._folder.root)!r}, and its descriptor says "
                f"{size:,}",
                digest=digest,
                expected=size,
                got=len(data),
            )
        content_type = None if image is None else image.media_type or None
        return read_manifest(data, content_type=content_type, expected=expected, digest=digest, limits=self._limits)

    def fetch_blob(
        self,
        repository: RepositoryName,  # noqa: ARG002  the folder has one repository
        blob: Descriptor,
        writer: BlobDestination,
    ) -> int:
        """Copies ``blob`` into ``writer``, from where that stands, and commits it; returns the bytes copied."""
        if write_known_bytes(blob, writer):
            return 0
        copied = 0
        with self._folder.open(self._repository, blob.digest) as opened:
            size = opened.seek(0, 2)
            if size != blob.size_bytes:
                raise SizeMismatch(
                    f"blob {blob.digest} has {size:,} bytes in {str(self._folder.root)!r}, and its descriptor says "
                    f"{blob.size_bytes:,}",
                    digest=blob.digest,
                    expected=blob.size_bytes,
                    got=size,
                )
            opened.seek(writer.offset)
            while chunk := opened.read(CHUNK_BYTES):
                writer.write(chunk)
                copied += len(chunk)
        writer.commit()
        return copied

    def list_referrers(self, repository: RepositoryName, subject: Digest) -> tuple[Descriptor, ...]:  # noqa: ARG002
        """Empty: what a folder has besides its tags is left to the next sync."""
        return ()

    def list_referrers_by_api(
        self, repository: RepositoryName, subject: Digest, *, is_known: bool = False
    ) -> tuple[Descriptor, ...] | None:
        """None: a folder has no such API, and says nothing of the registry's."""
