"""Object storage: a read gives the object that was listed, whole, or an error; what may pass is tried again for a time.

What can hold of both servers is tested on both: rclone checks signatures and ignores `If-Match`, moto does the reverse.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers import S3, free_port

from headrace.storage.s3 import obstore_client
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.errors import (
    AccessDeniedError,
    ObjectChangedError,
    StorageError,
    StorageUnreachableError,
)


@pytest.fixture(params=["s3", "moto_s3"])
def any_s3(request: pytest.FixtureRequest) -> S3:
    found: S3 = request.getfixturevalue(request.param)
    return found


def test_more_objects_than_a_page_holds_are_all_listed(s3: S3) -> None:
    bucket = s3.new_bucket()
    for number in range(1005):
        bucket.write(f"many/{number:04}", b"x")

    keys = [found.key for found in bucket.list("many/")]

    assert keys == [f"many/{number:04}" for number in range(1005)]


def test_an_object_replaced_between_listing_and_reading_is_never_read_as_the_listed_one(any_s3: S3) -> None:
    bucket = any_s3.new_bucket()
    bucket.write("a", b"first")
    (listed,) = bucket.list("a")
    bucket.write("a", b"other")

    with pytest.raises(ObjectChangedError, match="replaced"):
        bucket.read(listed)


def test_a_server_that_obeys_if_match_refuses_the_read_itself(moto_s3: S3) -> None:
    bucket = moto_s3.new_bucket()
    bucket.write("a", b"first")
    (listed,) = bucket.list("a")
    bucket.write("a", b"other")

    with pytest.raises(ObjectChangedError, match="PreconditionFailed"):
        bucket.read(listed)


def test_an_object_deleted_between_listing_and_reading_is_a_changed_object(any_s3: S3) -> None:
    bucket = any_s3.new_bucket()
    bucket.write("a", b"first")
    (listed,) = bucket.list("a")
    bucket.delete("a")

    with pytest.raises(ObjectChangedError, match="replaced or deleted"):
        bucket.read(listed)
    assert bucket.head("a") is None


def test_missing_credentials_are_an_error_that_names_the_variables(s3: S3) -> None:
    bucket = Bucket("any", endpoint=s3.endpoint)

    with pytest.raises(AccessDeniedError, match=r"no credentials found\. Set AWS_ACCESS_KEY_ID"):
        list(bucket.list(""))


def test_a_server_that_is_down_is_tried_for_the_time_allowed_and_named(s3: S3) -> None:
    port = free_port()
    bucket = replace(s3.new_bucket(), endpoint=f"http://127.0.0.1:{port}", retry_timeout_s=0.5)

    with pytest.raises(StorageUnreachableError, match=rf"at http://127.0.0.1:{port}: tried for \d+ s.*stack status"):
        list(bucket.list("days/"))


@contextmanager
def refusing(status: int, code: str) -> Iterator[str]:
    """A server that answers every request with one of S3's errors; its address."""
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "is_transient"),
    [
        (500, "InternalError", True),
        (503, "SlowDown", True),
        (429, "TooManyRequests", True),
        (409, "OperationAborted", True),
        (400, "RequestTimeout", True),
        (403, "RequestTimeTooSkewed", True),
        (412, "PreconditionFailed", True),
        (403, "AccessDenied", False),
        (403, "SignatureDoesNotMatch", False),
        (404, "NoSuchBucket", False),
        (301, "PermanentRedirect", False),
        (400, "InvalidArgument", False),
        (501, "NotImplemented", False),
    ],
)
def test_an_error_of_the_server_is_retried_where_it_may_pass(
    s3: S3, caplog: pytest.LogCaptureFixture, status: int, code: str, is_transient: bool
) -> None:
    with refusing(status, code) as endpoint:
        bucket = replace(s3.new_bucket(), endpoint=endpoint, retry_timeout_s=0.1)
        errors = []
        reads: tuple[Callable[[], object], ...] = (
            lambda: list(bucket.list("days/")),
            lambda: list(bucket.list_fast("days/")),
        )
        for read in reads:
            with pytest.raises(StorageError) as raised:
                read()
            errors.append(raised.value)

    assert [error.is_transient for error in errors] == [is_transient] * 2
    retried = is_transient and code != "PreconditionFailed"
    assert ("the object storage is unavailable (S3RequestError): attempt 2 in" in caplog.text) == retried


def test_a_clock_that_is_wrong_is_named(s3: S3) -> None:
    with refusing(403, "RequestTimeTooSkewed") as endpoint:
        bucket = replace(s3.new_bucket(), endpoint=endpoint, retry_timeout_s=0.1)

        with pytest.raises(StorageUnreachableError, match=r"differ by more than 15 minutes: set this machine's clock"):
            list(bucket.list("days/"))


def test_a_bucket_of_another_region_is_named_with_the_setting(s3: S3) -> None:
    with refusing(301, "PermanentRedirect") as endpoint:
        bucket = replace(s3.new_bucket(), endpoint=endpoint, region="eu-north-1")

        with pytest.raises(StorageError, match=r"Expected the bucket .* in the region eu-north-1; set AWS_REGION"):
            list(bucket.list("days/"))


def test_a_large_object_is_written_in_parts_and_listed_with_the_mark_that_reads_give(
    any_s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore_client, "MULTIPART_FROM", 5 * obstore_client.CHUNK)
    monkeypatch.setattr(obstore_client, "PART", 5 * obstore_client.CHUNK)
    bucket, path = any_s3.new_bucket(), tmp_path / "large"
    path.write_bytes(b"0123456789abcdef" * (700 * 1024))

    written = bucket.write("large", path)
    (listed,) = bucket.list("large")
    got = bucket.download(listed, tmp_path / "got")

    assert written.size == listed.size == 16 * 700 * 1024
    assert got.digests.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("key", ["a//b", "a/./b", "folder/", "tab\tnew", "a b+c%20#?ü"])
def test_a_key_of_any_kind_is_listed_read_and_deleted_as_it_is(moto_s3: S3, key: str) -> None:
    bucket = moto_s3.new_bucket()
    bucket.write(key, b"odd")
    bucket.write("plain", b"plain")

    listed = {found.key: found for found in bucket.list("")}
    read = bucket.read(listed[key])
    bucket.delete(key)

    assert (sorted(listed), read) == (sorted([key, "plain"]), b"odd")
    assert [found.key for found in bucket.list("")] == ["plain"]


def test_a_folder_of_our_own_is_listed_like_any_other(any_s3: S3) -> None:
    bucket = any_s3.new_bucket()
    for key in ("ours/a", "ours/b/c", "other"):
        bucket.write(key, b"x")

    ours = list(bucket.list_fast("ours/"))

    assert sorted(found.key for found in ours) == ["ours/a", "ours/b/c"]
    assert set(ours) == set(bucket.list("ours/"))
    assert list(bucket.list_fast("nothing/")) == []


def test_deleting_what_is_not_there_is_no_error(any_s3: S3) -> None:
    any_s3.new_bucket().delete("nothing")


def test_a_prefix_need_not_end_with_a_folder(any_s3: S3) -> None:
    bucket = any_s3.new_bucket()
    for key in ("days/2013-01-01", "days/2013-02-01", "days/2014-01-01"):
        bucket.write(key, b"x")

    assert [found.key for found in bucket.list("days/2013-")] == ["days/2013-01-01", "days/2013-02-01"]


def test_the_keys_of_a_profile_are_found_where_the_environment_has_none(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = s3.new_bucket()
    named.write("a", b"x")
    credentials = tmp_path / "credentials"
    credentials.write_text(f"[team]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "team")
    bucket = Bucket(named.name, endpoint=s3.endpoint)

    (found,) = bucket.list("a")

    assert bucket.read(found) == b"x"


def test_half_a_pair_of_keys_is_an_error_that_names_the_variables_and_shows_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    bucket = Bucket("any", endpoint="http://127.0.0.1:9", access_key="canary-one", retry_timeout_s=0.1)

    with pytest.raises(AccessDeniedError, match=r"no credentials found\. Set AWS_ACCESS_KEY_ID") as raised:
        bucket.head("a")

    assert "canary" not in str(raised.value)


def test_secrets_are_not_in_the_repr_of_a_bucket() -> None:
    assert "canary" not in repr(Bucket("b", access_key="canary-key", secret_key="canary-secret"))  # noqa: S106
