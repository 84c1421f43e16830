"""Images that another tool has copied into a folder: which tags of which repositories there are, and where bytes are.

Two shapes are read: an OCI image layout (image specification, image-layout.md), in which ``index.json`` names tags by
``org.opencontainers.image.ref.name``; and folders of the *dir* transport, as ``skopeo sync --dest dir`` writes a tree
of them, one for a tag. Files are opened by names that are made of digests, below the folder alone: links, and what is
no plain file, are refused, since a folder may come from elsewhere.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from registry_sync.domain.digests import Digest
from registry_sync.domain.media_types import MANIFEST_TYPES
from registry_sync.domain.references import TagName
from registry_sync.errors import ConfigurationError, ContentError, RegistrySyncError

_INDEX, _LAYOUT, _BLOBS = "index.json", "oci-layout", "blobs"
_MANIFEST, _VERSION = "manifest.json", "version"
_DIR_TRANSPORT = b"Directory Transport Version:"
_REF_NAME, _CONTAINERD_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
#: The largest ``index.json``; one of 50,000 tags has about 15 MB.
MAX_INDEX_BYTES = 64 * 1024 * 1024
#: The largest manifest of a *dir* folder that is read to learn its digest.
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_FOLDERS = 100_000


@dataclass(frozen=True)
class FolderImage:
    """A tag in a folder. ``media_type`` is empty where the folder does not say it; ``size_bytes`` is the manifest's."""

    digest: Digest
    media_type: str
    size_bytes: int


@dataclass(frozen=True)
class ImageFolder:
    """What a folder has. ``images`` are by repository, ``""`` where the folder names tags alone, and tag.

    ``skipped`` are sentences about what has no tag. ``files`` are those of the *dir* transport, by repository and the
    digest without its algorithm; an image layout says by the digest itself where they are.
    """

    root: Path
    images: Mapping[str, Mapping[TagName, FolderImage]]
    skipped: tuple[str, ...]
    files: Mapping[str, Mapping[str, Path]] | None = None

    def repository(self, wanted: str | None, source: str) -> str:
        """The one of ``images`` that is meant: ``wanted``, the only one, or the one that ``source`` ends with.

        ``source`` is ``host/path``. Raises :class:`ConfigurationError` for none, and for several.
        """
        if wanted is not None:
            found = [name for name in self.images if name == wanted or name.endswith(f"/{wanted}")]
        elif len(self.images) == 1:
            return next(iter(self.images))
        else:
            found = [name for name in self.images if name and (name == source or source.endswith(f"/{name}"))]
        if len(found) == 1:
            return found[0]
        there = ", ".join(sorted(self.images)[:10]) or "none"
        more = f" and {len(self.images) - 10:,} more" if len(self.images) > 10 else ""
        raise ConfigurationError(
            f"{str(self.root)!r} has no image that could be imported{self._why()}"
            if not self.images
            else f"say which repository of {str(self.root)!r} is imported; it has {there}{more}"
        )

    def _why(self) -> str:
        return f": {'; '.join(self.skipped[:5])}" if self.skipped else ""

    def open(self, repository: str, digest: Digest) -> BinaryIO:
        """The file that should have the bytes of ``digest``. Raises :class:`ContentError` where there is none."""
        path: Path | None
        if self.files is None:
            path = self.root / _BLOBS / digest.algorithm / digest.encoded
        else:
            path = self.files[repository].get(digest.encoded)
        opened = None if path is None else open_plain(path)
        if opened is not None:
            return opened
        raise ContentError(f"the folder {str(self.root)!r} lacks {digest}", digest=digest)


def open_folder(path: Path, tag: TagName | None = None) -> ImageFolder:
    """Reads which images ``path`` has; ``tag`` names a single one that has no tag.

    Raises :class:`ConfigurationError` for what is neither shape.
    """
    root = path.resolve()
    if not root.is_dir():
        raise ConfigurationError(f"{str(root)!r} is no folder; give an OCI image layout, or what skopeo sync wrote")
    if (root / _INDEX).is_file() or (root / _LAYOUT).is_file():
        return _open_layout(root, tag)
    return _open_tree(root, tag)


# -- OCI image layouts ------------------------------------------------------------------------------------------------


def _open_layout(root: Path, tag: TagName | None) -> ImageFolder:
    for folder in (root / _BLOBS, root / _BLOBS / "sha256"):
        if folder.is_symlink():
            raise ConfigurationError(f"{str(folder)!r} is a link; links in folders are not followed: copy the folder")
    document = _json(root / _INDEX, MAX_INDEX_BYTES)
    entries = document.get("manifests")
    if not isinstance(entries, list):
        raise ConfigurationError(f"{str(root / _INDEX)!r} has no list of manifests, so this is no OCI image layout")
    images: dict[str, dict[TagName, FolderImage]] = {}
    unnamed: list[FolderImage] = []
    skipped: list[str] = []
    for number, entry in enumerate(entries):
        image = _image_of_entry(root, number, entry)
        name = _name_of_entry(entry)
        if name is None:
            unnamed.append(image)
            continue
        repository, _, text = name.rpartition(":") if "/" not in name.rpartition(":")[2] else (name, "", "latest")
        try:
            _add(images, repository, TagName(text), image, root / _INDEX)
        except RegistrySyncError as problem:
            if isinstance(problem, ConfigurationError):
                raise
            skipped.append(f"{name[:200]!r} names no tag")
    if tag is not None and len(unnamed) == 1:
        _add(images, next(iter(images), "") if len(images) == 1 else "", tag, unnamed.pop(), root / _INDEX)
    skipped += [f"{image.digest} has no tag" for image in unnamed]
    return ImageFolder(root, images, tuple(skipped))


def _image_of_entry(root: Path, number: int, entry: Any) -> FolderImage:
    """The descriptor of an entry of ``index.json``."""
    try:
        size, digest, media_type = entry["size"], Digest(entry["digest"]), str(entry.get("mediaType") or "")
    except (TypeError, KeyError, AttributeError, RegistrySyncError):
        size, digest, media_type = -1, None, ""
    if digest is None or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ConfigurationError(
            f"entry {number + 1} of {str(root / _INDEX)!r} is no descriptor with mediaType, digest and size"
        )
    return FolderImage(digest, media_type, size)


def _name_of_entry(entry: Mapping[str, Any]) -> str | None:
    """``TAG``, ``REPOSITORY:TAG``, or None for an entry without a name."""
    annotations = entry.get("annotations")
    if not isinstance(annotations, dict):
        return None
    for key in (_CONTAINERD_NAME, _REF_NAME):
        name = annotations.get(key)
        if isinstance(name, str) and name:
            return name.partition("@")[0]
    return None


# -- folders of the dir transport -------------------------------------------------------------------------------------


def _open_tree(root: Path, tag: TagName | None) -> ImageFolder:
    images: dict[str, dict[TagName, FolderImage]] = {}
    files: dict[str, dict[str, Path]] = {}
    skipped: list[str] = []
    for folder in _dir_folders(root):
        name = "" if folder == root else folder.relative_to(root).as_posix()
        repository, _, text = name.rpartition(":")
        if folder == root:
            if tag is None:
                raise ConfigurationError(f"{str(root)!r} is one image without a tag: give it one by --tag")
            repository, text = "", tag
        image = _image_of_folder(folder)
        try:
            _add(images, repository, TagName(text), image, folder)
        except RegistrySyncError as problem:
            if isinstance(problem, ConfigurationError):
                raise
            skipped.append(f"{name[:200]!r} names no tag")
        else:
            of_repository = files.setdefault(repository, {})
            of_repository |= _files(folder)
            of_repository[image.digest.encoded] = folder / _MANIFEST
    if not images and not skipped:
        raise ConfigurationError(
            f"{str(root)!r} has no index.json and no folder with a manifest.json: it is neither an OCI image "
            "layout nor what skopeo sync --dest dir wrote"
        )
    return ImageFolder(root, images, tuple(skipped), files)


def _dir_folders(root: Path) -> Iterator[Path]:
    """Folders with a ``manifest.json``, in order of their names; links are not followed."""
    for count, (folder, names, files) in enumerate(os.walk(root)):
        if count >= MAX_FOLDERS:
            raise ConfigurationError(f"{str(root)!r} has more than {MAX_FOLDERS:,} folders; import a part of it")
        names.sort()
        if _MANIFEST in files and _is_dir_transport(Path(folder)):
            yield Path(folder)


def _is_dir_transport(folder: Path) -> bool:
    opened = open_plain(folder / _VERSION)
    if opened is None:
        return False
    with opened:
        return opened.read(len(_DIR_TRANSPORT)) == _DIR_TRANSPORT


def _image_of_folder(folder: Path) -> FolderImage:
    data = _read(folder / _MANIFEST, MAX_MANIFEST_BYTES)
    return FolderImage(Digest.of(data), "", len(data))


def _files(folder: Path) -> dict[str, Path]:
    """The files of a folder by the digest in their names, without its algorithm."""
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            found[entry.name.removesuffix(f".{_MANIFEST}").rpartition("-")[2]] = Path(entry.path)
    return found


# -- files ------------------------------------------------------------------------------------------------------------


def _add(
    images: dict[str, dict[TagName, FolderImage]], repository: str, tag: TagName, image: FolderImage, at: Path
) -> None:
    """Adds a tag. Raises :class:`ConfigurationError` when it is there with another digest."""
    present = images.setdefault(repository, {}).setdefault(tag, image)
    if present.digest != image.digest:
        raise ConfigurationError(f"{str(at)!r} has the tag {tag} twice: as {present.digest} and as {image.digest}")
    if image.media_type and image.media_type not in MANIFEST_TYPES:
        raise ConfigurationError(f"{str(at)!r}: the tag {tag} is {image.media_type[:80]!r}, which is no manifest")


def open_plain(path: Path) -> BinaryIO | None:
    """The plain file at ``path``, None where there is none. Raises :class:`ContentError` for links and other files."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as problem:
        what = "is a link, and links in folders are not followed" if path.is_symlink() else f"{problem.strerror}"
        raise ContentError(f"{str(path)!r} cannot be read: {what}") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ContentError(f"{str(path)!r} is no plain file")
    return os.fdopen(number, "rb")


def _read(path: Path, most_bytes: int) -> bytes:
    """All bytes of a small file. Raises :class:`ConfigurationError`."""
    try:
        opened = open_plain(path)
    except ContentError as problem:
        raise ConfigurationError(problem.message) from None
    if opened is None:
        raise ConfigurationError(f"{str(path)!r} is missing")
    with opened:
        data = opened.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ConfigurationError(f"{str(path)!r} has more than {most_bytes:,} bytes")
    return data


def _json(path: Path, most_bytes: int) -> dict[str, Any]:
    try:
        document = json.loads(_read(path, most_bytes))
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{str(path)!r} is not JSON") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{str(path)!r} is no JSON object")
    return document
