"""A sample of files: one, or several below a prefix, of a bucket or of a folder of this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from headrace.object_location import FOLDER_SCHEME
from headrace.settings import Settings
from headrace.storage.local_folder import LocalFolder
from headrace.storage.s3.bucket import Bucket
from headrace.templates.csv_sample import CsvSample, SampleError, decompress_head, parse_csv, read_head
from headrace.templates.inference import parse_days
from headrace.templates.partition_pattern import PartitionPattern, infer_pattern, single_object_pattern

MOST_FILES = 12
MOST_ROWS = 100_000
MOST_BYTES = 32 << 20
"""Rows and unpacked bytes of all files of a sample together; from each file its beginning is read."""

MOST_KEYS = 100_000
S3 = "s3://"

ReadHead = Callable[[str, int], bytes]
"""Key, number of bytes → the first bytes of the object, one more if there are more."""


@dataclass(frozen=True)
class ObjectSample:
    """Rows of some objects, and where all of them are.

    Attributes:
        name: What the source may be called.
        bucket: As the source declares it; None for the bucket of HEADRACE_BUCKET.
        where: The place, for people.
        pattern: How keys name partitions.
        csv: Rows of the files read, how they are written, and what is odd about them.
        days: The day of each row's partition, where partitions are days.
        read: Keys of the files read.
    """

    name: str
    bucket: str | None
    where: str
    pattern: PartitionPattern
    csv: CsvSample
    days: pl.Series | None
    read: tuple[str, ...]


def sample_path(path: Path, project: Path) -> ObjectSample:
    """A sample of a file or of the files below a folder.

    Raises:
        SampleError: There is nothing to infer a source from.
    """
    if not path.exists():
        raise SampleError(f"{path}: there is no such file or folder. Name a CSV file, a folder of them, or an address.")
    folder = path.resolve().parent
    inside = folder.is_relative_to(project.resolve())
    bucket = f"{FOLDER_SCHEME}{folder.relative_to(project.resolve())}" if inside else f"{FOLDER_SCHEME}//{folder}"
    read = partial(_read_file, folder)
    if path.is_dir():
        prefix = f"{path.resolve().name}/"
        keys = list(LocalFolder(bucket, folder).keys(prefix))
        return _sample(bucket, infer_pattern(keys, prefix, str(path)), str(path), read)
    return _sample(bucket, single_object_pattern(path.name), str(path), read)


def sample_bucket(url: str, settings: Settings) -> ObjectSample:
    """A sample of an object, or of the objects below a prefix, of a bucket (`s3://bucket/prefix/`).

    Raises:
        SampleError: There is nothing to infer a source from.
    """
    name, _, prefix = url.removeprefix(S3).partition("/")
    bucket = Bucket(name, endpoint=settings.s3_endpoint)
    keys = _keys(bucket, prefix, url)
    declared = None if name == settings.bucket else name
    read = partial(_read_object, bucket)
    if keys == [prefix]:
        return _sample(declared, single_object_pattern(prefix), url, read)
    folder = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    prefix = folder if all(key.startswith(folder) for key in keys) else prefix
    return _sample(declared, infer_pattern(keys, prefix, url), url, read)


def _keys(bucket: Bucket, prefix: str, url: str) -> list[str]:
    keys = []
    for found in bucket.list(prefix):
        if not found.key.endswith("/"):  # what consoles make to show an empty folder
            keys.append(found.key)
        if len(keys) == MOST_KEYS:
            break
    if not keys:
        raise SampleError(f"{url}: no object has a key that begins with {prefix!r}. Check bucket, prefix and endpoint.")
    return keys


def _sample(bucket: str | None, pattern: PartitionPattern, where: str, read: ReadHead) -> ObjectSample:
    chosen = _spread(list(pattern.partitions), MOST_FILES)
    parts, faults = dict[str, CsvSample](), list[str]()
    for key in chosen:
        try:
            parts[key] = _parse(key, read, len(chosen))
        except SampleError as error:  # one bad file does not stop the good ones
            faults.append(str(error))
    if not parts:
        raise SampleError(faults[0])
    csv, used = _merged(parts, faults)
    partitions = [pattern.partitions[key] for key in used for _ in range(parts[key].rows.height)]
    days = parse_days(partitions) if pattern.are_days else None
    name = pattern.prefix.rstrip("/").rpartition("/")[2].removesuffix(pattern.suffix)
    return ObjectSample(
        name, bucket, where, pattern, csv, None if days is None else pl.Series(days, dtype=pl.Date), used
    )


def _spread(keys: Sequence[str], most: int) -> list[str]:
    """The first, the last, and some between, at even distances."""
    if len(keys) <= most:
        return list(keys)
    return [keys[round(place * (len(keys) - 1) / (most - 1))] for place in range(most)]


def _parse(key: str, read: ReadHead, files: int) -> CsvSample:
    most = MOST_BYTES // files
    head = read(key, most)
    content, is_cut = decompress_head(head, most, key)
    return parse_csv(content, key, is_cut=is_cut or len(head) > most, most_rows=MOST_ROWS // files)


def _merged(parts: dict[str, CsvSample], faults: list[str]) -> tuple[CsvSample, tuple[str, ...]]:
    """The rows of the files that have the columns and the separator of the last one; others are faults."""
    *_, (last_key, last) = parts.items()
    same = {
        key: part
        for key, part in parts.items()
        if set(part.rows.columns) == set(last.rows.columns) and part.dialect.separator == last.dialect.separator
    }
    others = [f"{key} has other columns, or another separator, than {last_key}" for key in parts if key not in same]
    notes = dict.fromkeys(f"{key}: {note}" for key, part in same.items() for note in part.notes)
    refused = [f"{key}: {fault}" for key, part in same.items() for fault in part.faults]
    dialects = [part.dialect for part in same.values()]
    dialect = replace(
        last.dialect,
        encoding=next((one.encoding for one in dialects if one.encoding != "utf-8"), "utf-8"),
        multiline=any(one.multiline for one in dialects),
        final_newline=all(one.final_newline for one in dialects),
    )
    # not `select`, which takes some names, such as `*`, for patterns
    rows = pl.concat(pl.DataFrame({name: part.rows[name] for name in last.rows.columns}) for part in same.values())
    is_cut = any(part.is_cut for part in same.values())
    return CsvSample(rows, dialect, is_cut, tuple(notes), (*faults, *others, *refused)), tuple(same)


def _read_file(folder: Path, key: str, most: int) -> bytes:
    try:
        return read_head(folder / key, most)
    except OSError as error:
        raise SampleError(f"{folder / key} cannot be read: {error.strerror}.") from error


def _read_object(bucket: Bucket, key: str, most: int) -> bytes:
    found = bucket.head(key)
    if found is None or not found.size:
        return b""
    if found.size <= most:
        return bucket.read(found)
    answer = bucket.call(f"read s3://{bucket.name}/{key}", "get_object", Key=key, Range=f"bytes=0-{most}")
    content: bytes = answer["Body"].read()
    return content
