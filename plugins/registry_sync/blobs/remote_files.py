"""The files of one store through fsspec: names relative to its root, and the drivers' errors translated.

S3-compatible stores may refuse to join objects or to remove many in one request; callers then have another way.

This module knows the differences between drivers: which ones show an object only when it is complete, how their
listings call a time, and that their errors have no common type. It does not know blobs.
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
from urllib.parse import parse_qs, urlsplit

from registry_sync.blobs.layout import PARTIALS, FolderEntry
from registry_sync.blobs.store import not_removed, says_full, size_error, store_error
from registry_sync.errors import BlobStoreError, BlobStoreUnavailable, ConfigurationError, RegistrySyncError

log = logging.getLogger(__name__)

#: Concurrent copies inside the store, and concurrent removals.
_THREADS = 8
#: The most objects that one request removes.
_REMOVED_AT_ONCE = 1000


def join_objects(filesystem: Any, sources: Sequence[str], target: str) -> None:
    """Joins ``sources`` into ``target``: at most 10,000, each but the last at least 5 MiB long.

    ``filesystem`` is an s3fs file system and raises its errors. A failed multipart upload is aborted, so that the
    bucket keeps no invisible parts; one whose process was killed is left to a lifecycle rule of the bucket.
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
        except Exception as problem:  # noqa: BLE001  another error is being raised
            log.warning(
                "the multipart upload %s of %s could not be aborted; its space is used until the bucket aborts it: %s",
                upload["UploadId"],
                target,
                problem,
            )
        raise


def remove_objects(filesystem: Any, paths: Sequence[str]) -> list[str]:
    """Removes objects of one bucket, a thousand per request; returns those that the store did not remove.

    ``filesystem`` is an s3fs file system and raises its errors, also where the store does not support the request.
    """
    remaining = []
    for start in range(0, len(paths), _REMOVED_AT_ONCE):
        keys = {filesystem.split_path(path)[1]: path for path in paths[start : start + _REMOVED_AT_ONCE]}
        bucket = filesystem.split_path(paths[start])[0]
        listed = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        response = filesystem.call_s3("delete_objects", Bucket=bucket, Delete=listed)
        remaining += [keys[error["Key"]] for error in response.get("Errors", []) if error.get("Key") in keys]
    return remaining


#: Object stores, in which an object appears complete or not at all.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
#: The part sizes of uploads, where drivers have one; their default of 50 MB, ten at once, uses much memory.
_CHUNKS = {"s3": 8 * 1024 * 1024, "s3a": 8 * 1024 * 1024, "gs": 8 * 1024 * 1024, "gcs": 8 * 1024 * 1024}
#: Stores that can join objects without a transfer, and remove many in one request.
_LIKE_S3 = frozenset({"s3", "s3a"})
#: How drivers name the time of a file in a listing; the first one present is used.
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")


class FileVanished(BlobStoreUnavailable):
    """The store does not show a file that was just written: it is late, or another process removed the file."""


class RemoteFiles:
    """Files below ``root`` of an fsspec file system; ``place`` names the store in messages.

    Methods raise :class:`BlobStoreError` and its subclasses, and :class:`FileNotFoundError` for a missing file.
    """

    def __init__(self, filesystem: Any, root: str, *, place: str, protocol: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.place = place
        self.protocol = protocol
        #: Whether many objects are removed in one request; False after the store refused that.
        self._removes_many = protocol in _LIKE_S3

    def path(self, name: str) -> str:
        """The driver's path of the file ``name``."""
        return f"{self.root}/{name}" if name else self.root

    def size(self, name: str) -> int:
        info = self._info(name)
        if info["type"] == "directory":  # a folder in the place of a file is not a file
            raise FileNotFoundError(name)
        return int(info["size"])

    def stored_at(self, name: str) -> datetime:
        info = self._info(name)
        if info["type"] == "directory":
            raise BlobStoreError(f"the blob store at {self.place} has a folder where a file should be: {name}")
        with self._errors():
            return self._time(info)

    def open(self, name: str) -> BinaryIO:
        """The bytes as a seekable stream; of an object store each read is a request, and nothing is read ahead.

        Drivers keep up to 50 MiB otherwise, for each of many pulls at once.
        """
        with self._errors():
            if self.protocol == "memory":  # its files share one position
                return io.BytesIO(self.filesystem.cat_file(self.path(name)))
            options = {"cache_type": "none"} if self.protocol in OBJECT_STORES else {}
            return cast("BinaryIO", self.filesystem.open(self.path(name), "rb", **options))

    def read(self, name: str, start: int = 0) -> bytes:
        """The bytes from ``start`` on."""
        with self._errors():
            return bytes(self.filesystem.cat_file(self.path(name), start=start))

    def signed_url(self, name: str, lifetime_seconds: int) -> str:
        """A URL that reads the file without credentials. Raises :class:`ConfigurationError` when the driver has none.

        S3 is asked to send the bytes as a download, not as a page of its host.
        """
        as_download = {
            "ResponseContentType": "application/octet-stream",
            "ResponseContentDisposition": "attachment",
        }
        options = as_download if self.protocol in _LIKE_S3 else {}
        try:
            url = str(self.filesystem.sign(self.path(name), expiration=lifetime_seconds, **options))
        except Exception as problem:  # noqa: BLE001  drivers' errors have no common type, and may show secrets
            raise ConfigurationError(
                f"the blob store at {self.place} signs no URLs ({type(problem).__name__}): check its credentials, or "
                "set [registry_sync] blob_delivery = direct"
            ) from None
        names = {name.lower() for name in parse_qs(urlsplit(url).query)}
        if not any(name == "sig" or name.endswith("signature") for name in names):
            raise ConfigurationError(
                f"the blob store at {self.place} gives URLs without a signature; set [registry_sync] "
                "blob_delivery = direct"
            )
        return url

    def put_bytes(self, name: str, data: bytes | bytearray) -> None:
        """Writes a file that appears complete or not at all.

        Raises :class:`BlobStoreError` for a wrong size, and :class:`FileVanished` when it is gone before it is checked.
        """
        self._put(name, len(data), lambda path: self.filesystem.pipe_file(path, bytes(data)))

    def put_file(self, name: str, source: Path, size_bytes: int) -> None:
        """As :meth:`put_bytes`, from a local file of ``size_bytes``."""
        options = {"chunksize": _CHUNKS[self.protocol]} if self.protocol in _CHUNKS else {}
        self._put(name, size_bytes, lambda path: self.filesystem.put_file(str(source), path, **options))

    def move(self, name: str, target: str) -> None:
        """Moves a file; in an object store by copy and deletion, so that a crash between them leaves both."""
        with self._errors():
            if self.protocol in OBJECT_STORES:
                # Not the driver's own move, which removes by the request for many that not every store supports.
                self.filesystem.cp_file(self.path(name), self.path(target))
                self.filesystem.rm_file(self.path(name))
                return
            self._make_parent(self.path(target))
            self.filesystem.mv(self.path(name), self.path(target))

    @property
    def can_join(self) -> bool:
        """Whether the store supports :meth:`join`."""
        return self.protocol in _LIKE_S3

    def join(self, names: Iterable[str], target: str) -> None:
        """Joins the files ``names`` into ``target``, inside the store. It appears complete or not at all."""
        with self._errors():
            join_objects(self.filesystem, [self.path(name) for name in names], self.path(target))

    def remove_if_present(self, name: str) -> None:
        """Removes one file; a missing one is no error."""
        with contextlib.suppress(FileNotFoundError):
            self.remove(name)

    def remove_folder(self, name: str) -> None:
        """Removes a folder with its files; a missing one is no error. Files written meanwhile may stay.

        Raises :class:`BlobStoreError` when some files could not be removed; the others are.
        """
        if self.protocol not in OBJECT_STORES:
            self._remove_each([entry.name for entry in self.children(name)])
            with contextlib.suppress(Exception):  # it has another file now, or disappeared with its last file
                self.filesystem.rmdir(self.path(name))
            return
        with self._errors():
            paths = sorted(self.filesystem.find(self.path(name)))
        self._remove_each([path.removeprefix(f"{self.root}/") for path in self._remove_many(paths)])

    def _remove_many(self, paths: list[str]) -> list[str]:
        """Removes ``paths`` by requests for many; returns the remaining ones, all where that is not supported."""
        if self._removes_many and paths:
            try:
                return remove_objects(self.filesystem, paths)
            except Exception:  # noqa: BLE001  after any error they are removed one by one
                self._removes_many = False
        return paths

    def _remove_each(self, names: Sequence[str]) -> None:
        """Removes files one by one. Raises after all were tried, or when the store does not respond."""
        failures: list[BlobStoreError] = []

        def remove(name: str) -> BlobStoreError | None:
            try:
                self.remove_if_present(name)
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
        """The entries of one folder; none when it is missing."""
        path = self.path(folder)
        with self._errors():
            self.filesystem.invalidate_cache(path)
            try:
                found = self.filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return
        for info in sorted(found, key=lambda info: str(info["name"])):
            name = str(info["name"]).removeprefix(self.root).strip("/")
            if name == folder:  # the marker object that some tools create for an empty folder
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
            # Beside an uploaded part, so that both are swept when the writer is killed; never beside a blob.
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
        """Checks the stored size of a file that was just written, and removes the file if it is wrong."""
        try:
            found = int(self.filesystem.info(path)["size"])
        except FileNotFoundError:
            raise FileVanished(f"the blob store at {self.place} does not show a file that was just written") from None
        if found != size_bytes:
            with contextlib.suppress(Exception):  # the error below reports the problem
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
        except Exception as problem:  # drivers' errors have no common type
            if says_full(problem):
                raise store_error(OSError(errno.ENOSPC, reason(problem)), self.place) from problem
            raise BlobStoreUnavailable(
                f"the blob store at {self.place} does not respond: {reason(problem)}"
            ) from problem


def reason(problem: Exception) -> str:
    """The type and text of a driver's error."""
    return f"{type(problem).__name__}: {str(problem)[:300]}"
