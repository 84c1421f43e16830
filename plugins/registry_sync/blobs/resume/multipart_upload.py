"""The uploaded parts of one large blob, kept in the store itself, so that any machine can resume its download.

A part is an object in the blob's own folder below ``.partials``. Its name has the range of its bytes and the digest of
the blob's bytes up to its end: ``<start>-<end>-<hex>``. So two writers of the same bytes write the same object, writers
of different bytes never overwrite each other's, and a later writer can check whether a part continues its own bytes.
No locks are used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from registry_sync.blobs.layout import PARTIALS, blob_name, digest_of, flat_name
from registry_sync.blobs.remote_files import FileVanished, RemoteFiles
from registry_sync.blobs.store import store_error
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError, BlobStoreFull, BlobStoreUnavailable

#: The size of a part, and of the largest blob that is uploaded whole.
PART_BYTES = 16 * 1024 * 1024
#: The size of parts is doubled until a blob has at most this many; S3 joins 10,000.
MAX_PART_COUNT = 5000
#: Each of the other writers interrupts at most two attempts: it removes first the files of the folder, then the folder.
_PUT_ATTEMPTS = 5
_NAME = re.compile(r"(\d{15})-(\d{15})-([0-9a-f]+)")


def part_bytes(size_bytes: int, least: int = PART_BYTES) -> int:
    """The size of the parts of a blob of that size, the same for every writer; at least ``least``."""
    length = least
    while length * MAX_PART_COUNT < size_bytes:
        length *= 2
    return length


class Part(NamedTuple):
    """Bytes ``start`` to ``end`` of a blob. ``prefix`` is the hexadecimal digest of all bytes before ``end``."""

    start: int
    end: int
    prefix: str

    @property
    def name(self) -> str:
        return f"{self.start:015d}-{self.end:015d}-{self.prefix}"


class MultipartUpload:
    """The parts of one blob, each ``part_bytes`` long. Safe to use from several threads, processes and machines."""

    def __init__(self, files: RemoteFiles, digest: Digest, part_bytes: int) -> None:
        self.part_bytes = part_bytes
        self._files = files
        self._target = blob_name(digest)
        self._folder = f"{PARTIALS}/{flat_name(digest)}"

    @property
    def can_join(self) -> bool:
        """Whether the store itself can join the parts."""
        return self._files.can_join

    def found(self) -> list[Part]:
        """The complete parts in the store, by start; of several with one start the longest first."""
        parts = []
        for entry in self._files.children(self._folder):
            match = _NAME.fullmatch(entry.name.rpartition("/")[2])
            if match and entry.is_file:
                part = Part(int(match[1]), int(match[2]), match[3])
                if part.end - part.start == entry.size_bytes:
                    parts.append(part)
        return sorted(parts, key=lambda part: (part.start, -part.end))

    def read(self, part: Part, start: int) -> bytes:
        """The bytes of a part from ``start`` on, an offset in the blob; none when the part is missing."""
        try:
            return self._files.read(self._name(part), start - part.start)
        except FileNotFoundError:
            return b""

    def put(self, part: Part, data: bytes) -> None:
        """Stores a part. Safe to repeat.

        Another writer that publishes the blob removes the folder of its parts, with what is being written there: that
        is tried again, until the folder stays.
        """
        for _ in range(_PUT_ATTEMPTS - 1):
            if self._try_put(part, data) is None:
                return
        problem = self._try_put(part, data)
        if problem is not None:
            raise problem

    def _try_put(self, part: Part, data: bytes) -> BlobStoreError | None:
        """Stores a part; returns the error when a file or folder disappeared meanwhile, else None."""
        try:
            self._files.put_bytes(self._name(part), data)
        except FileVanished as problem:
            return problem
        except FileNotFoundError as problem:
            return store_error(problem, self._files.place)
        return None

    def join(self, parts: Iterable[Part], size_bytes: int) -> bool:
        """Joins ``parts`` into the blob; False when one is missing or the store does not support it.

        Raises :class:`BlobStoreFull`. A result of the wrong size is removed.
        """
        try:
            self._files.join([self._name(part) for part in parts], self._target)
            if self._files.size(self._target) == size_bytes:
                return True
            self._files.remove_if_present(self._target)
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
    """Removes the parts of blobs to which none was added since ``oldest``, and incomplete files beside them.

    The remaining parts of a blob that was stored meanwhile are removed whatever their age. Returns the number of blobs
    and the errors.
    """
    count, failures = 0, list[BlobStoreError]()
    for entry in files.children(PARTIALS):
        try:
            if entry.is_folder:
                written = [part.stored_at for part in files.children(entry.name)]
                if not written or not (max(written) <= oldest or _is_superseded(files, entry.name, max(written))):
                    continue
                files.remove_folder(entry.name)
            elif entry.stored_at <= oldest:
                files.remove_if_present(entry.name)
            else:
                continue
        except BlobStoreUnavailable:
            raise
        except BlobStoreError as problem:
            failures.append(problem)
        else:
            count += 1
    return count, failures


def _is_superseded(files: RemoteFiles, folder: str, written_at: datetime) -> bool:
    """Whether the blob of the parts in ``folder`` was stored after the last of them was written."""
    digest = digest_of(folder.rpartition("/")[2])
    try:
        return digest is not None and files.stored_at(blob_name(digest)) >= written_at
    except FileNotFoundError:
        return False
