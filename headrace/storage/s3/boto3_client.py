"""Requests by boto3: listings that show every key as it is, objects with names of any kind, uploads nobody ended.

And what is left of an object whose read broke off: rclone answers that with status 200, which obstore does not take.
"""

import gzip
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import orjson

from headrace.storage.s3.errors import (
    ConnectionFailedError,
    NoCredentialsError,
    S3RequestError,
    UntrustedCertificateError,
)
from headrace.storage.s3.objects import CONNECT_SECONDS, READ_SECONDS, BucketLocation, GetResponse, ObjectMeta

CHUNK = 1024 * 1024
CONNECTIONS = 16


@dataclass(frozen=True)
class Boto3Client:
    """Any object, by any key; safe to use from many threads."""

    place: BucketLocation

    def list_page(self, prefix: str, after: str | None) -> tuple[list[ObjectMeta], str | None]:
        """A page of the objects below `prefix`, in the order of keys, and where the next one begins."""
        more = {"ContinuationToken": after} if after else {}
        page = self.call("list_objects_v2", Prefix=prefix, **more)
        return [_parse_listed(item) for item in page.get("Contents", ())], page.get("NextContinuationToken")

    def head(self, key: str) -> ObjectMeta:
        """The object as it is now."""
        return _parse_head(key, self.call("head_object", Key=key))

    def get(self, found: ObjectMeta, start: int = 0) -> GetResponse:
        """The object from its byte `start` on, if it is still the one that was found."""
        exactly = {"IfMatch": f'"{found.etag}"'} if found.etag else {}
        exactly |= {"VersionId": found.version} if found.version else {}
        exactly |= {"Range": f"bytes={start}-"} if start else {}
        answer = self.call("get_object", Key=found.key, **exactly)
        if start and "ContentRange" not in answer:
            raise ConnectionFailedError(f"requested the bytes from {start:,} on, received the whole object.")
        return GetResponse(_parse_head(found.key, answer), _chunks(answer["Body"]))

    def put(self, key: str, content: Path | bytes) -> ObjectMeta:
        """Write an object, in one request."""
        if isinstance(content, bytes):
            answer, size = self.call("put_object", Key=key, Body=content), len(content)
        else:
            with content.open("rb") as file:
                answer, size = self.call("put_object", Key=key, Body=file), content.stat().st_size
        return ObjectMeta(key, size, _unquoted(answer), answer.get("VersionId"))

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.call("delete_object", Key=key)

    def call(self, request: str, **what: Any) -> Any:  # noqa: ANN401  boto3 makes its answers at run time
        """The answer to one request, by boto3's name for it."""
        with _translate_errors():
            call: Callable[..., Any] = getattr(self._client, request)
            return call(Bucket=self.place.bucket, **what)

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401
        import boto3.session  # noqa: PLC0415  slow to import
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        place = self.place
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=CONNECTIONS,
            retries={"total_max_attempts": 1},  # tried again by the bucket, within one limit of time
            request_checksum_calculation="when_required",  # rclone and older servers fail on the newer checksums
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"} if place.own_endpoint else {},
        )
        try:
            session = botocore.session.Session(profile=place.profile)
            session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
            session.register_component("data_loader", create_model_loader(session.get_config_variable("data_path")))
            client: Any = boto3.session.Session(botocore_session=session).client(
                "s3",
                endpoint_url=place.own_endpoint,
                aws_access_key_id=place.access_key,
                aws_secret_access_key=place.secret_key,
                aws_session_token=place.session_token,
                region_name=place.region,
                config=config,
            )
        except ValueError:
            raise place.endpoint_error() from None
        client.meta.events.register("before-parse.s3.ListObjectsV2", parse_contents)
        return client


def create_model_loader(data_path: str | None) -> Any:  # noqa: ANN401  boto3 is imported late
    """Loads botocore's descriptions of services, with less work than its own loader.

    That one looks for the versions of all 400 services before it loads one, and parses with the json module.

    Args:
        data_path: More folders with descriptions (AWS_DATA_PATH).
    """
    from botocore.loaders import JSONFileLoader, Loader  # noqa: PLC0415

    class OrjsonFileLoader(JSONFileLoader):  # type: ignore[misc]
        def load_file(self, file_path: str) -> Any:  # noqa: ANN401
            for suffix, open_file in ((".json", open), (".json.gz", gzip.open)):
                if os.path.isfile(file_path + suffix):  # noqa: PTH113  botocore gives text
                    with open_file(file_path + suffix, "rb") as file:
                        return orjson.loads(file.read())
            return None

    class ModelLoader(Loader):  # type: ignore[misc]
        def list_available_services(self, _type_name: str) -> list[str]:
            return [name for folder in self.search_paths if os.path.isdir(folder) for name in os.listdir(folder)]  # noqa: PTH112, PTH208

    paths = [os.path.expanduser(os.path.expandvars(path)) for path in (data_path or "").split(os.pathsep) if path]  # noqa: PTH111
    return ModelLoader(extra_search_paths=paths, file_loader=OrjsonFileLoader())


def parse_contents(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_event: object) -> None:
    """Parse the objects of a listing; the rest is left to botocore, whose parser walks its model for each field.

    Args:
        response_dict: The answer as it came, which botocore parses next.
        customized_response_dict: What is added to the result.
    """
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314  botocore parses it in the same way
    except ET.ParseError:
        return  # botocore parses it again, and says what is wrong
    namespace = root.tag.removesuffix("ListBucketResult")
    objects = root.findall(f"{namespace}Contents")
    if not objects:
        return
    tags = {name: namespace + name for name in ("Key", "Size", "ETag", "LastModified")}
    customized_response_dict["Contents"] = [_parse_fields(item, tags) for item in objects]
    root[:] = [item for item in root if item.tag != f"{namespace}Contents"]
    response_dict["body"] = ET.tostring(root)


def _parse_fields(item: ET.Element, tags: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: text for name, tag in tags.items() if (text := item.findtext(tag)) is not None}
    if "LastModified" in fields:
        fields["LastModified"] = _time(fields["LastModified"])
    return {**fields, "Size": int(fields["Size"])}


def _time(text: str) -> datetime:
    """A time of an answer. Those of a listing are ISO 8601; botocore's parser tries other forms first."""
    from botocore.utils import parse_timestamp  # noqa: PLC0415

    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        found: datetime = parse_timestamp(text)
        return found


def _chunks(body: Any) -> Iterator[Any]:  # noqa: ANN401
    with _translate_errors():
        yield from body.iter_chunks(CHUNK)


def _parse_listed(item: dict[str, Any]) -> ObjectMeta:
    return ObjectMeta(item["Key"], item["Size"], _unquoted(item), modified=item.get("LastModified"))


def _parse_head(key: str, answer: dict[str, Any]) -> ObjectMeta:
    size = int(answer["ContentRange"].rpartition("/")[2]) if "ContentRange" in answer else answer["ContentLength"]
    return ObjectMeta(key, size, _unquoted(answer), answer.get("VersionId"), answer.get("LastModified"))


def _unquoted(answer: dict[str, Any]) -> str:
    return str(answer.get("ETag", "")).strip('"')


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Errors of boto3 as ours."""
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise NoCredentialsError from error
    except exceptions.ClientError as error:
        said = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        raise S3RequestError(status, str(said.get("Code") or status), said.get("Message", "")) from error
    except exceptions.SSLError as error:
        raise UntrustedCertificateError(str(error)) from error
    except (exceptions.BotoCoreError, OSError) as error:
        raise ConnectionFailedError(str(error)) from error
