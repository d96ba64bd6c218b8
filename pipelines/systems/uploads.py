"""Uploads in parts that never ended: a bucket keeps, and bills, their parts until somebody gives them up."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.systems.object_storage import Bucket
from pipelines.systems.s3.failures import StorageError
from pipelines.systems.s3.wire import Asked, elements


@dataclass(frozen=True)
class Upload:
    """An upload that is under way, or that nobody ends any more."""

    key: str
    id: str
    began: datetime


def unfinished(bucket: Bucket, prefix: str, hours: float) -> Iterator[Upload]:
    """Uploads below `prefix` that began longer ago; none where the server does not answer or list them."""
    before = datetime.now(UTC) - timedelta(hours=hours)
    query = {"uploads": "", "prefix": prefix}
    while True:
        try:
            page = elements(
                bucket.ask(f"list the uploads of s3://{bucket.name}/{prefix}", Asked("GET", f"/{bucket.name}", query))
            )
        except StorageError:
            return
        for item in page.iter("Upload"):
            told = {field.tag: field.text or "" for field in item}
            began = datetime.fromisoformat(told["Initiated"])
            if began < before:
                yield Upload(told["Key"], told["UploadId"], began)
        if page.findtext("IsTruncated") != "true":
            return
        more = {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"}
        query |= {name: page.findtext(tag) or "" for name, tag in more.items()}


def abandon(bucket: Bucket, upload: Upload) -> None:
    """Give the upload up; its parts go.

    Raises:
        StorageError: The server does not let us.
    """
    where = f"/{bucket.name}/{upload.key}"
    bucket.ask(f"give up the upload of s3:/{where}", Asked("DELETE", where, {"uploadId": upload.id}))
