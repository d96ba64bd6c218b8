"""Uploads in parts that never ended: a bucket keeps, and bills, their parts until somebody gives them up."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from headrace import failpoints
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.errors import StorageError


@dataclass(frozen=True)
class MultipartUpload:
    """An upload that is under way, or that nobody ends any more."""

    key: str
    id: str
    began: datetime


def list_incomplete(bucket: Bucket, prefix: str, hours: float) -> Iterator[MultipartUpload]:
    """Uploads below `prefix` that began longer ago; none where the server does not answer or list them."""
    before = datetime.now(UTC) - timedelta(hours=hours)
    doing, more = f"list the uploads of s3://{bucket.name}/{prefix}", dict[str, str]()
    while True:
        try:
            page = bucket.call(doing, "list_multipart_uploads", Prefix=prefix, **more)
        except StorageError:
            return
        for item in page.get("Uploads", ()):
            if item["Initiated"] < before:
                yield MultipartUpload(item["Key"], item["UploadId"], item["Initiated"])
        if not page.get("IsTruncated"):
            return
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort(bucket: Bucket, upload: MultipartUpload) -> None:
    """Give the upload up; its parts go.

    Raises:
        StorageError: The server does not let us.
    """
    doing = f"give up the upload of s3://{bucket.name}/{upload.key}"
    with failpoints.failpoint("upload that never ended"):
        bucket.call(doing, "abort_multipart_upload", Key=upload.key, UploadId=upload.id)
