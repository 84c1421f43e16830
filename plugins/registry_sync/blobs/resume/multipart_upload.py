"""Parts: what was written of one large blob, kept in the store itself, so that any machine can continue it.

A part is an object in a folder of the blob's own below ``.partials``. Its name says which bytes it holds, and the
digest of the blob's bytes up to its end: ``<begin>-<end>-<hex>``. So two writers of the same bytes write the same
object, writers of different bytes never touch each other's, and who continues knows of each part whether it follows
what is there. Nothing is locked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from registry_sync.blobs.layout import PARTIALS, blob_name, digest_of, flat_name
from registry_sync.blobs.remote_files import RemoteFiles
from registry_sync.blobs.store import store_error
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable

#: The size of a part, and of the largest blob that is handed over as one.
PART_BYTES = 16 * 1024 * 1024
#: Parts are doubled until there are at most so many; S3 joins 10,000.
MAX_PART_COUNT = 5000
_NAME = re.compile(r"(\d{15})-(\d{15})-([0-9a-f]+)")


def part_bytes(size_bytes: int, least: int = PART_BYTES) -> int:
    """How long the parts of a blob of that size are, the same for every writer; at least ``least``."""
    length = least
    while length * MAX_PART_COUNT < size_bytes:
        length *= 2
    return length


class Part(NamedTuple):
    """Bytes ``begin`` to ``end`` of a blob. ``prefix`` is the hexadecimal digest of everything before ``end``."""

    begin: int
    end: int
    prefix: str

    @property
    def name(self) -> str:
        return f"{self.begin:015d}-{self.end:015d}-{self.prefix}"


class MultipartUpload:
    """The parts of one blob, each ``part_bytes`` long. Safe to use from several threads, processes and machines."""

    def __init__(self, files: RemoteFiles, digest: Digest, part_bytes: int) -> None:
        self.part_bytes = part_bytes
        self._files = files
        self._target = blob_name(digest)
        self._folder = f"{PARTIALS}/{flat_name(digest)}"

    @property
    def can_join(self) -> bool:
        """Whether the store can make the blob of its parts by itself."""
        return self._files.can_join

    def found(self) -> list[Part]:
        """Those that are there and whole, by where they begin; of several at one place the longest first."""
        parts = []
        for entry in self._files.children(self._folder):
            match = _NAME.fullmatch(entry.name.rpartition("/")[2])
            if match and entry.is_file:
                part = Part(int(match[1]), int(match[2]), match[3])
                if part.end - part.begin == entry.size_bytes:
                    parts.append(part)
        return sorted(parts, key=lambda part: (part.begin, -part.end))

    def read(self, part: Part, begin: int) -> bytes:
        """Its bytes from ``begin`` on, a place in the blob; none when it is gone."""
        try:
            return self._files.read(self._name(part), begin - part.begin)
        except FileNotFoundError:
            return b""

    def put(self, part: Part, data: bytes) -> None:
        """Stores a part; again does no harm."""
        try:
            self._files.put_bytes(self._name(part), data)
        except FileNotFoundError:  # another writer published the blob, and removed the folder in this moment
            try:
                self._files.put_bytes(self._name(part), data)
            except FileNotFoundError as problem:
                raise store_error(problem, self._files.place) from problem

    def join(self, parts: Iterable[Part], size_bytes: int) -> bool:
        """Whether the store made the blob of ``parts``; not when one of them is gone, or it does not know how.

        Raises :class:`BlobStoreFull`. What it made of another size is removed again.
        """
        try:
            self._files.join([self._name(part) for part in parts], self._target)
            if self._files.size(self._target) == size_bytes:
                return True
            self._files.remove_if_there(self._target)
        except BlobStoreFull:
            raise
        except (BlobStoreError, FileNotFoundError):
            pass
        return False

    def forget(self) -> None:
        """Removes every part. Raises :class:`BlobStoreError` when some could not be removed; the others are."""
        self._files.remove_folder(self._folder)

    def _name(self, part: Part) -> str:
        return f"{self._folder}/{part.name}"


def sweep_parts(files: RemoteFiles, oldest: datetime) -> tuple[int, list[BlobStoreError]]:
    """Removes the parts of blobs to which none was added since ``oldest``, and what broke off beside them.

    Parts of a blob that is stored since, which could not be removed then, go whatever their age. Gives how many blobs
    that were, and what could not be removed.
    """
    count, failures = 0, list[BlobStoreError]()
    for entry in files.children(PARTIALS):
        try:
            if entry.is_folder:
                written = [part.stored_at for part in files.children(entry.name)]
                if not written or not (max(written) <= oldest or _is_left_over(files, entry.name, max(written))):
                    continue
                files.remove_folder(entry.name)
            elif entry.stored_at <= oldest:
                files.remove_if_there(entry.name)
            else:
                continue
        except BlobStoreUnavailable:
            raise
        except BlobStoreError as problem:
            failures.append(problem)
        else:
            count += 1
    return count, failures


def _is_left_over(files: RemoteFiles, folder: str, written_at: datetime) -> bool:
    """Whether the blob whose parts are in ``folder`` is stored, after the last of them was written."""
    digest = digest_of(folder.rpartition("/")[2])
    try:
        return digest is not None and files.stored_at(blob_name(digest)) >= written_at
    except FileNotFoundError:
        return False
