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

from registry_sync.blobs.failures import store_error
from registry_sync.blobs.names import PARTIALS, blob_name, flat_name
from registry_sync.blobs.remote_files import RemoteFiles
from registry_sync.domain.digests import Digest
from registry_sync.errors import BlobStoreError

#: The size of a part, and of the largest blob that is handed over as one.
PART_BYTES = 16 * 1024 * 1024
#: Parts are doubled until there are at most so many; S3 joins 10,000.
MAX_PART_COUNT = 5000
_NAME = re.compile(r"(\d{15})-(\d{15})-([0-9a-f]+)")


def part_bytes(size_bytes: int) -> int:
    """How long the parts of a blob of that size are, the same for every writer."""
    length = PART_BYTES
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


class Parts:
    """The parts of one blob. Safe to use from several threads, processes and machines."""

    def __init__(self, files: RemoteFiles, digest: Digest) -> None:
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
        """Whether the store made the blob of ``parts``; not when one of them is gone, or it does not know how."""
        try:
            self._files.join([self._name(part) for part in parts], self._target)
            return self._files.size(self._target) == size_bytes
        except (BlobStoreError, FileNotFoundError):
            return False

    def forget(self) -> None:
        """Removes every part."""
        self._files.remove_folder(self._folder)

    def _name(self, part: Part) -> str:
        return f"{self._folder}/{part.name}"


def sweep_parts(files: RemoteFiles, oldest: datetime) -> int:
    """Removes the parts of blobs to which none was added since ``oldest``, and what broke off beside them; how many
    blobs that were.
    """
    count = 0
    for entry in files.children(PARTIALS):
        if entry.is_folder:
            written = [part.stored_at for part in files.children(entry.name)]
            if written and max(written) <= oldest:
                files.remove_folder(entry.name)
                count += 1
        elif entry.stored_at <= oldest:
            files.remove_if_there(entry.name)
            count += 1
    return count
