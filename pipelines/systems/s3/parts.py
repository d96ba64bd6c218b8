"""An object too large for one request: its parts one after the other, and then the word that makes them one."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import IO

from pipelines.systems.s3.wire import Answer, Asked, Slice, elements, refusal

PART = 64 * 1024 * 1024
MOST_PARTS = 10_000

Ask = Callable[[Asked], tuple[Answer, bytes]]


def send_parts(ask: Ask, path: str, file: IO[bytes], size: int) -> None:
    """Send the file; a failed upload is taken back.

    Args:
        ask: Puts one request, again where that may help.
        path: Bucket and key.
        file: The bytes.
        size: How many they are.
    """
    upload = elements(ask(Asked("POST", path, {"uploads": ""}))[1]).findtext("UploadId") or ""
    try:
        marks = [
            ask(Asked("PUT", path, {"partNumber": str(number), "uploadId": upload}, body=part))[0].mark
            for number, part in enumerate(_parts(file, size), start=1)
        ]
        _end(ask, Asked("POST", path, {"uploadId": upload}, body=_whole(marks)))
    except BaseException:
        ask(Asked("DELETE", path, {"uploadId": upload}))
        raise


def _end(ask: Ask, asked: Asked) -> None:
    _, said = ask(asked)
    if elements(said).tag == "Error":  # found out after the server had said 200
        raise refusal(HTTPStatus.INTERNAL_SERVER_ERROR, said)


def _parts(file: IO[bytes], size: int) -> Iterator[Slice]:
    length = max(PART, -(-size // MOST_PARTS))
    return (Slice(file, start, min(length, size - start)) for start in range(0, size, length))


def _whole(marks: list[str]) -> bytes:
    parts = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{mark}"</ETag></Part>'
        for number, mark in enumerate(marks, start=1)
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
