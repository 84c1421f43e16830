"""Objects of S3 joined into one by S3 itself: a multi-part upload whose parts are copies."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

#: Copies at once. The store works, nothing is sent.
_THREADS = 8


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
        with contextlib.suppress(Exception):
            filesystem.call_s3("abort_multipart_upload", **upload)
        raise
