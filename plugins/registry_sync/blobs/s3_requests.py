"""What S3 does with several objects at one request: join them into one, and remove many.

Stores that speak like S3 may refuse either; whoever calls has another way then.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

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
    begun = filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    upload = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}

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
        answer = filesystem.call_s3("delete_objects", Bucket=bucket, Delete=listed)
        left += [keys[error["Key"]] for error in answer.get("Errors", []) if error.get("Key") in keys]
    return left
