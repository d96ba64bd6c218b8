"""Object storage behind a network that fails: each request ends in time, and the message says what to check."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from servers import S3, Relay

from headrace.storage.s3 import boto3_client, obstore_client
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.errors import StorageError, StorageUnreachableError


def list_with_boto3(bucket: Bucket) -> object:
    return list(bucket.list("days/"))


def list_with_obstore(bucket: Bucket) -> object:
    return list(bucket.list_fast("days/"))


LISTINGS = pytest.mark.parametrize("read", [list_with_boto3, list_with_obstore])


@LISTINGS
def test_a_server_that_accepts_and_never_answers_is_given_up(
    s3: S3, relay: Callable[[int], Relay], monkeypatch: pytest.MonkeyPatch, read: Callable[[Bucket], object]
) -> None:
    monkeypatch.setattr(boto3_client, "READ_SECONDS", 0.2)
    monkeypatch.setattr(obstore_client, "READ_SECONDS", 0.2)
    silent = relay(s3.port)
    silent.stop_answering()
    bucket = replace(s3.new_bucket(), endpoint=f"http://127.0.0.1:{silent.port}", retry_timeout_s=0.3)

    with pytest.raises(StorageUnreachableError, match=r"tried for \d+ s.*Check AWS_ENDPOINT_URL"):
        read(bucket)


@LISTINGS
def test_a_host_name_that_nobody_knows_is_named_and_may_pass(s3: S3, read: Callable[[Bucket], object]) -> None:
    bucket = replace(s3.new_bucket(), endpoint="http://storage.invalid:9000", retry_timeout_s=0.2)

    with pytest.raises(StorageUnreachableError, match=r"at http://storage\.invalid:9000.*Check AWS_ENDPOINT_URL"):
        read(bucket)


@pytest.fixture
def untrusted_server(tmp_path: Path) -> Iterator[int]:
    """A TLS server whose certificate nobody has signed; its port."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                secure.recv(65536)

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@LISTINGS
def test_a_certificate_that_nobody_signed_is_refused_at_once(
    s3: S3, untrusted_server: int, caplog: pytest.LogCaptureFixture, read: Callable[[Bucket], object]
) -> None:
    bucket = replace(s3.new_bucket(), endpoint=f"https://127.0.0.1:{untrusted_server}", retry_timeout_s=0.2)

    with pytest.raises(
        StorageError, match=r"at https://127\.0\.0\.1.*certificate is not trusted.*AWS_CA_BUNDLE"
    ) as error:
        read(bucket)
    assert not error.value.is_transient
    assert "unavailable" not in caplog.text
