"""Uploads in parts that never ended: a bucket keeps, and bills, their parts until somebody gives them up."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines import faults
from pipelines.systems.object_storage import Bucket, StorageError


@dataclass(frozen=True)
class Upload:
    """An upload that is under way, or that nobody ends any more."""

    key: str
    id: str
    began: datetime


def unfinished(bucket: Bucket, prefix: str, hours: float) -> Iterator[Upload]:
    """Uploads below `prefix` that began longer ago; none where the server does not answer or list them."""
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  only who asks a bucket pays

    before = datetime.now(UTC) - timedelta(hours=hours)
    pages = bucket.client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket.name, Prefix=prefix)
    try:
        for page in pages:
            for item in page.get("Uploads", ()):
                if item["Initiated"] < before:
                    yield Upload(item["Key"], item["UploadId"], item["Initiated"])
    except (BotoCoreError, ClientError):
        return


def abandon(bucket: Bucket, upload: Upload) -> None:
    """Give the upload up; its parts go.

    Raises:
        StorageError: The server does not let us.
    """
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        with faults.point("upload that never ended"):
            bucket.client.abort_multipart_upload(Bucket=bucket.name, Key=upload.key, UploadId=upload.id)
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"Cannot give up the upload of s3://{bucket.name}/{upload.key}: {error}") from error
