"""The files of one store, as fsspec reaches them: names relative to its root, and errors that are ours.

Stores that speak like S3 may refuse to join objects, or to remove many at one request; whoever calls has another way
then.

What differs between drivers is known here: which of them show an object only when it is whole, what their listings
call a time, and that their errors have no common type. What a blob is is known elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, cast

from registry_sync.blobs.layout import PARTIALS, FolderEntry
from registry_sync.blobs.store import not_removed, says_full, size_error, store_error
from registry_sync.errors import BlobStoreError, BlobStoreUnavailable, RegistrySyncError

log = logging.getLogger(__name__)

#: Copies at once. The store works, nothing is sent.
_THREADS = 8
#: Objects that one request removes at most.
_REMOVED_AT_ONCE = 1000


def join_objects(filesystem: Any, sources: Sequence[str], target: str) -> None:
    """Makes ``target`` of ``sources``, each but the last at least 5 MiB long, at most 10,000.

    ``filesystem`` is an s3fs file system and raises its errors. An upload that fails is taken back, so that the bucket
    keeps no invisible parts; one whose process is killed is left to a rule of the bucket.
    """
    bucket, key, _ = filesystem.split_path(target)
    started = filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    upload = {"Bucket": bucket, "Key": key, "UploadId": started["UploadId"]}

    def copy(number: int) -> dict[str, Any]:
        source_bucket, source_key, _ = filesystem.split_path(sources[number])
        source = {"Bucket": source_bucket, "Key": source_key}
        done = filesystem.call_s3("upload_part_copy", **upload, CopySource=source, PartNumber=number + 1)
        return {"PartNumber": number + 1, "ETag": done["CopyPartResult"]["ETag"]}

    try:
        with ThreadPoolExecutor(min(_THREADS, len(sources))) as pool:
            parts = list(pool.map(copy, range(len(sources))))
        filesystem.call_s3("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
    except BaseException:
        try:
            filesystem.call_s3("abort_multipart_upload", **upload)
        except Exception as problem:  # noqa: BLE001  another error is on its way
            log.warning(
                "the upload %s of %s could not be taken back, and keeps room until a rule of the bucket aborts it: %s",
                upload["UploadId"],
                target,
                problem,
            )
        raise


def remove_objects(filesystem: Any, paths: Sequence[str]) -> list[str]:
    """Removes objects of one bucket, a thousand at a request; those of ``paths`` that the store says it left.

    ``filesystem`` is an s3fs file system and raises its errors, also where the store knows no such request.
    """
    left = []
    for start in range(0, len(paths), _REMOVED_AT_ONCE):
        keys = {filesystem.split_path(path)[1]: path for path in paths[start : start + _REMOVED_AT_ONCE]}
        bucket = filesystem.split_path(paths[start])[0]
        listed = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        response = filesystem.call_s3("delete_objects", Bucket=bucket, Delete=listed)
        left += [keys[error["Key"]] for error in response.get("Errors", []) if error.get("Key") in keys]
    return left


#: Object stores, in which an object appears whole or not at all.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
#: Of these the drivers take a size of parts; their own choice of 50 MB, ten at once, is much memory per upload.
_CHUNKS = {"s3": 8 * 1024 * 1024, "s3a": 8 * 1024 * 1024, "gs": 8 * 1024 * 1024, "gcs": 8 * 1024 * 1024}
#: Those that can join objects into one by themselves, without sending a byte, and remove many at one request.
_LIKE_S3 = frozenset({"s3", "s3a"})
#: Files removed at once where each needs a request.
#: What drivers call the time of a file in a listing; the first that is there is taken.
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")


class RemoteFiles:
    """Files below ``root`` of an fsspec file system; ``place`` is how messages call the store.

    Methods raise :class:`BlobStoreError` and those below it; where a file is not there, :class:`FileNotFoundError`.
    """

    def __init__(self, filesystem: Any, root: str, *, place: str, protocol: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.place = place
        self.protocol = protocol
        #: Whether the store is asked to remove many objects at one request; not after it refused.
        self._removes_many = protocol in _LIKE_S3

    def path(self, name: str) -> str:
        """What the driver calls the file ``name``."""
        return f"{self.root}/{name}" if name else self.root

    def size(self, name: str) -> int:
        info = self._info(name)
        if info["type"] == "directory":  # a folder in a file's place is none
            raise FileNotFoundError(name)
        return int(info["size"])

    def stored_at(self, name: str) -> datetime:
        info = self._info(name)
        if info["type"] == "directory":
            raise BlobStoreError(f"the blob store at {self.place} has a folder where a file should be: {name}")
        with self._errors():
            return self._time(info)

    def open(self, name: str) -> BinaryIO:
        """The bytes, to read and to seek in."""
        with self._errors():
            if self.protocol == "memory":  # its files share one position
                return io.BytesIO(self.filesystem.cat_file(self.path(name)))
            return cast("BinaryIO", self.filesystem.open(self.path(name), "rb"))

    def read(self, name: str, begin: int = 0) -> bytes:
        """The bytes from ``begin`` on."""
        with self._errors():
            return bytes(self.filesystem.cat_file(self.path(name), start=begin))

    def put_bytes(self, name: str, data: bytes | bytearray) -> None:
        """Writes a file that appears whole or not at all. Raises :class:`BlobStoreError` if its size is another one."""
        self._put(name, len(data), lambda path: self.filesystem.pipe_file(path, bytes(data)))

    def put_file(self, name: str, source: Path, size_bytes: int) -> None:
        """As :meth:`put_bytes`, the ``size_bytes`` that are in a file of this machine."""
        options = {"chunksize": _CHUNKS[self.protocol]} if self.protocol in _CHUNKS else {}
        self._put(name, size_bytes, lambda path: self.filesystem.put_file(str(source), path, **options))

    def move(self, name: str, target: str) -> None:
        """In an object store a copy and a deletion, so that a crash between them leaves both."""
        with self._errors():
            if self.protocol in OBJECT_STORES:
                # Not the driver's own move, which removes by a request for many that not every store knows.
                self.filesystem.cp_file(self.path(name), self.path(target))
                self.filesystem.rm_file(self.path(name))
                return
            self._make_parent(self.path(target))
            self.filesystem.mv(self.path(name), self.path(target))

    @property
    def can_join(self) -> bool:
        """Whether :meth:`join` is known here."""
        return self.protocol in _LIKE_S3

    def join(self, names: Iterable[str], target: str) -> None:
        """Makes ``target`` of the bytes of ``names``, inside the store. It appears whole or not at all."""
        with self._errors():
            join_objects(self.filesystem, [self.path(name) for name in names], self.path(target))

    def remove_if_there(self, name: str) -> None:
        """Removes one file; none is well too."""
        with contextlib.suppress(FileNotFoundError):
            self.remove(name)

    def remove_folder(self, name: str) -> None:
        """Removes the files in a folder, and the folder; none is well too. What is written meanwhile may stay.

        Raises :class:`BlobStoreError` when some could not be removed; the others are.
        """
        if self.protocol not in OBJECT_STORES:
            self._remove_each([entry.name for entry in self.children(name)])
            with contextlib.suppress(Exception):  # another file came into it, or it went with its last file
                self.filesystem.rmdir(self.path(name))
            return
        with self._errors():
            paths = sorted(self.filesystem.find(self.path(name)))
        self._remove_each([path.removeprefix(f"{self.root}/") for path in self._left_of_many(paths)])

    def _left_of_many(self, paths: list[str]) -> list[str]:
        """Those of ``paths`` that one request for all of them did not remove; all of them where there is none."""
        if self._removes_many and paths:
            try:
                return remove_objects(self.filesystem, paths)
            except Exception:  # noqa: BLE001  whatever it says, they are removed one by one
                self._removes_many = False
        return paths

    def _remove_each(self, names: Sequence[str]) -> None:
        """Removes files one by one. Raises after all were tried, or when the store does not answer."""
        failures: list[BlobStoreError] = []

        def remove(name: str) -> BlobStoreError | None:
            try:
                self.remove_if_there(name)
            except BlobStoreError as problem:
                return problem
            return None

        with ThreadPoolExecutor(_THREADS) as pool:
            for start in range(0, len(names), _THREADS):
                found = pool.map(remove, names[start : start + _THREADS])
                failures += [problem for problem in found if problem is not None]
                if any(isinstance(problem, BlobStoreUnavailable) for problem in failures):
                    break
        if failures:
            raise not_removed(failures, f"of {len(names):,} files")

    def remove(self, name: str) -> None:
        with self._errors():
            self.filesystem.rm_file(self.path(name))

    def children(self, folder: str) -> Iterator[FolderEntry]:
        """What is in one folder; nothing when it is not there."""
        path = self.path(folder)
        with self._errors():
            self.filesystem.invalidate_cache(path)
            try:
                found = self.filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return
        for info in sorted(found, key=lambda info: str(info["name"])):
            name = str(info["name"]).removeprefix(self.root).strip("/")
            if name == folder:  # the mark that some tools leave for an empty folder
                continue
            is_folder = info["type"] == "directory"
            with self._errors():
                stored_at = datetime.now(timezone.utc) if is_folder else self._time(info)
            yield FolderEntry(name, is_folder, info["type"] == "file", int(info["size"] or 0), stored_at)

    def _info(self, name: str) -> dict[str, Any]:
        with self._errors():
            return cast("dict[str, Any]", self.filesystem.info(self.path(name)))

    def _time(self, info: dict[str, Any]) -> datetime:
        found = next((info[key] for key in _TIMES if info.get(key) is not None), None)
        if found is None:
            found = self.filesystem.modified(info["name"])
        if isinstance(found, int | float):
            return datetime.fromtimestamp(found, timezone.utc)
        if isinstance(found, str):
            found = datetime.fromisoformat(found.replace("Z", "+00:00"))
        time = cast("datetime", found)
        return time if time.tzinfo else time.replace(tzinfo=timezone.utc)

    def _put(self, name: str, size_bytes: int, upload: Callable[[str], object]) -> None:
        path = self.path(name)
        with self._errors():
            if self.protocol in OBJECT_STORES:
                upload(path)
                self._check_size(path, size_bytes)
                return
            # Beside a part, so that it goes with the parts when the writer is killed; never beside a blob.
            folder = name.rpartition("/")[0] if name.startswith(f"{PARTIALS}/") else PARTIALS
            temporary = self.path(f"{folder}/{uuid.uuid4().hex}")
            for written in (temporary, path):
                self._make_parent(written)
            try:
                upload(temporary)
                self._check_size(temporary, size_bytes)
                self.filesystem.mv(temporary, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    self.filesystem.rm_file(temporary)
                raise

    def _check_size(self, path: str, size_bytes: int) -> None:
        """Asks the store how long the file is that was just written; one of another length is removed again."""
        try:
            found = int(self.filesystem.info(path)["size"])
        except FileNotFoundError:
            raise BlobStoreUnavailable(f"the blob store at {self.place} does not show what was just written") from None
        if found != size_bytes:
            with contextlib.suppress(Exception):  # what is wrong with the store is said below
                self.filesystem.rm_file(path)
            raise size_error(self.place, size_bytes, found)

    def _make_parent(self, path: str) -> None:
        if self.protocol not in OBJECT_STORES:
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RegistrySyncError, FileNotFoundError):
            raise
        except OSError as problem:
            raise store_error(problem, self.place) from problem
        except Exception as problem:  # each driver has errors of its own, of no common type
            if says_full(problem):
                raise store_error(OSError(errno.ENOSPC, reason(problem)), self.place) from problem
            raise BlobStoreUnavailable(
                f"the blob store at {self.place} does not answer: {reason(problem)}"
            ) from problem


def reason(problem: Exception) -> str:
    """What a driver's error says, and of which type it is."""
    return f"{type(problem).__name__}: {str(problem)[:300]}"
