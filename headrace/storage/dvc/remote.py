"""The DVC remote: the objects of a cache, below a prefix of a bucket, looked at again after they were written."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from headrace import failpoints
from headrace.errors import HeadraceError, MissingObjectError, NotConfiguredError
from headrace.storage.digests import Digests
from headrace.storage.dvc.objects import object_key
from headrace.storage.files import read_config
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.errors import ObjectUnreadableError
from headrace.storage.s3.objects import ObjectMeta

PAGE = 1000
"""Objects that one request lists."""


class NotOnRemoteError(HeadraceError):
    """What was written to the remote is not what the remote has."""


@dataclass(frozen=True)
class Remote:
    """The DVC remote: the same objects below a prefix of a bucket.

    Attributes:
        bucket: The bucket.
        prefix: What every key begins with.
        is_verified: Whether `dvc pull` hashes what it gets (`verify = true`).
    """

    bucket: Bucket
    prefix: str
    is_verified: bool = False

    @classmethod
    def of(cls, root: Path) -> "Remote":
        """The default remote of the workspace `root`."""
        config = read_config(root)
        name = config.get("core", {}).get("remote", "")
        remote = config.get(f'remote "{name}"', {})
        url = remote.get("url", "")
        if not url.startswith("s3://"):
            raise NotConfiguredError(
                f"{root}/.dvc/config: expected a default remote on S3 (url = s3://bucket/prefix), seen"
                f" remote {name!r} with url {url!r}. `dvc remote add --default storage s3://…` sets one."
            )
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        return cls(
            Bucket(
                bucket,
                endpoint=remote.get("endpointurl"),
                access_key=remote.get("access_key_id"),
                secret_key=remote.get("secret_access_key"),
                region=remote.get("region"),
            ),
            prefix.strip("/"),
            remote.get("verify") == "true",
        )

    def key(self, md5: str) -> str:
        """Key of the object on the bucket."""
        return f"{self.prefix}/{object_key(md5)}".lstrip("/")

    def where(self, md5: str) -> str:
        """Address of the object, for people."""
        return f"s3://{self.bucket.name}/{self.key(md5)}"

    def put_if_missing(self, md5: str, size: int, path: Path) -> int:
        """Have the object there; bytes written, none if it was there already.

        Raises:
            NotOnRemoteError: It is not there with its size and hash after it was written.
        """
        if self.has(md5, size):
            return 0
        self.verify(md5, size, self.write(md5, path))
        return size

    def write(self, md5: str, path: Path) -> ObjectMeta:
        """Put the object there, whatever is there."""
        with failpoints.failpoint(f"object onto the remote{' (a list of files)' if md5.endswith('.dir') else ''}"):
            return self.bucket.write(self.key(md5), path)

    def has(self, md5: str, size: int) -> bool:
        """Whether the object is there, with that size and hash."""
        return self.matches(md5, size, self.bucket.head(self.key(md5)))

    def stat_many(self, md5s: Collection[str]) -> dict[str, ObjectMeta]:
        """What is there of these objects, which share their first two digits: by a listing, else one by one.

        A listing is read no further than it costs less than to ask for each of them.
        """
        keys, found = {self.key(md5): md5 for md5 in md5s}, dict[str, ObjectMeta]()
        if len(keys) > 1:
            most = PAGE * len(keys)
            listed = list(self.bucket.list_fast(next(iter(keys)).rpartition("/")[0] + "/", most))
            found = {keys.pop(item.key): item for item in listed if item.key in keys}
            if len(listed) < most:
                return found
        return found | {md5: item for key, md5 in keys.items() if (item := self.bucket.head(key))}

    def matches(self, md5: str, size: int, found: ObjectMeta | None) -> bool:
        """Whether what is there is the object: by its ETag where that is the md5, else by its bytes, read again."""
        if found is None or found.size != size:
            return False
        name = md5.removesuffix(".dir")
        try:
            return found.etag == name or self.bucket.digests(found).md5 == name
        except ObjectUnreadableError:
            return False

    def verify(self, md5: str, size: int, found: ObjectMeta | None) -> None:
        """Hold what was found after writing against what was written.

        Raises:
            NotOnRemoteError: It is something else, or nothing.
        """
        if not self.matches(md5, size, found):
            seen = f"{found.size:,} bytes with ETag {found.etag}" if found else "nothing"
            raise NotOnRemoteError(
                f"{self.where(md5)}: expected {size:,} bytes with md5 {md5} after writing them, found {seen}."
                " Nothing was released. Check the server, then run the same command again."
            )

    def without_credentials(self) -> "Remote":
        """The same place, for somebody who has keys of their own."""
        bucket = Bucket(self.bucket.name, endpoint=self.bucket.endpoint, region=self.bucket.region)
        return replace(self, bucket=bucket)

    def download(self, md5: str, path: Path) -> Digests:
        """Write the bytes of the object to `path`, a chunk at a time; their hashes.

        Raises:
            MissingObjectError: It is not there.
        """
        found = self.bucket.head(self.key(md5))
        if found is None:
            raise MissingObjectError(
                f"{self.where(md5)} is not on the remote, nor in this workspace's cache."
                " Whoever has it can `dvc push`; `headrace doctor` says what else is missing."
            )
        return self.bucket.download(found, path).digests
