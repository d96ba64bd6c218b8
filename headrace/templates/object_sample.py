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
        location: Address of the objects, as the source declares it.
        where: The place, for people.
        pattern: How keys, from the location on, name partitions.
        csv: Rows of the files read, how they are written, and what is odd about them.
        days: The day of each row's partition, where partitions are days.
        read: Keys of the files read.
    """

    name: str
    location: str
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
    target = path.resolve()
    folder = target if path.is_dir() else target.parent
    inside = folder.is_relative_to(project.resolve())
    shown = str(folder.relative_to(project.resolve())) if inside else f"//{folder}"
    location = FOLDER_SCHEME + (f"{shown}/" if shown != "." or path.is_dir() else "")
    pattern = (
        infer_pattern(list(LocalFolder(location, folder).keys("")), "", str(path))
        if path.is_dir()
        else single_object_pattern(path.name)
    )
    return _sample(location, target.name, pattern, str(path), partial(_read_file, folder))


def sample_bucket(url: str, settings: Settings) -> ObjectSample:
    """A sample of an object, or of the objects below a prefix, of a bucket (`s3://bucket/prefix/`).

    Raises:
        SampleError: There is nothing to infer a source from.
    """
    name, _, prefix = url.removeprefix(S3).partition("/")
    bucket = Bucket(name, endpoint=settings.s3_endpoint)
    keys = _keys(bucket, prefix, url)
    folder = f"{prefix.rstrip('/')}/" if prefix else ""
    if not all(key.startswith(folder) for key in keys):  # an object, or the beginning of names
        folder = prefix[: prefix.rfind("/") + 1]
    location = folder if folder and name == settings.bucket else f"{S3}{name}/{folder}"
    below = [key.removeprefix(folder) for key in keys]
    pattern = single_object_pattern(below[0]) if keys == [prefix] else infer_pattern(below, "", url)
    return _sample(location, prefix.rstrip("/").rpartition("/")[2], pattern, url, partial(_read_object, bucket, folder))


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


def _sample(location: str, name: str, pattern: PartitionPattern, where: str, read: ReadHead) -> ObjectSample:
    """A sample of the objects below a folder; of one object, its own location."""
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
    own_days = None if days is None else pl.Series(days, dtype=pl.Date)
    if pattern.grain == "all":
        location, name = location + pattern.prefix, pattern.prefix.rpartition("/")[2]
    return ObjectSample(name.removesuffix(pattern.suffix), location, where, pattern, csv, own_days, used)


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
    encoding = next((one.encoding for one in dialects if one.encoding != "utf-8"), "utf-8")
    dialect = replace(last.dialect, encoding=encoding)
    for key, part in same.items():
        if part.dialect.encoding != encoding and not _is_ascii(part.rows):
            notes[f"{key}: is {part.dialect.encoding}, so {encoding} reads other letters: convert it"] = None
    # not `select`, which takes some names, such as `*`, for patterns
    rows = pl.concat(pl.DataFrame({name: part.rows[name] for name in last.rows.columns}) for part in same.values())
    is_cut = any(part.is_cut for part in same.values())
    bad_lines = sum(part.bad_lines for part in same.values())
    bad_line = next((f"{key}: {part.bad_line}" for key, part in same.items() if part.bad_lines), "")
    found = CsvSample(rows, dialect, is_cut, tuple(notes), (*faults, *others, *refused), bad_lines, bad_line)
    return found, tuple(same)


def _is_ascii(rows: pl.DataFrame) -> bool:
    beyond = (column.str.contains(r"[^\x00-\x7f]").any() for column in rows)
    return all(map(str.isascii, rows.columns)) and not any(beyond)


def _read_file(folder: Path, key: str, most: int) -> bytes:
    try:
        return read_head(folder / key, most)
    except OSError as error:
        raise SampleError(f"{folder / key} cannot be read: {error.strerror}.") from error


def _read_object(bucket: Bucket, folder: str, name: str, most: int) -> bytes:
    key = folder + name
    found = bucket.head(key)
    if found is None or not found.size:
        return b""
    if found.size <= most:
        return bucket.read(found)
    answer = bucket.call(f"read s3://{bucket.name}/{key}", "get_object", Key=key, Range=f"bytes=0-{most}")
    content: bytes = answer["Body"].read()
    return content
