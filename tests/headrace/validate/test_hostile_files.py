"""Bytes that are made to do more than be read: whatever a source delivers is parsed as declared, or refused."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headrace.validate.csv_dialect import CsvDialect
from headrace.validate.csv_reader import read_csv
from headrace.validate.parquet_reader import read_parquet
from headrace.validate.unreadable import UnreadableError

CSV = b"carrier,flight\nUA,17\n"


class RunsOnLoading:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def zip_archive(name: str) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr(name, CSV)
    return into.getvalue()


def tar_archive(name: str) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(CSV)
        archive.addfile(member, io.BytesIO(CSV))
    return into.getvalue()


def numpy_objects(trap: str) -> bytes:
    into = io.BytesIO()
    np.save(into, np.array([RunsOnLoading(trap)], dtype=object), allow_pickle=True)
    return into.getvalue()


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "pickle": lambda trap: pickle.dumps(RunsOnLoading(trap)),
    "pickle of protocol 0": lambda trap: pickle.dumps(RunsOnLoading(trap), protocol=0),
    "array of objects": numpy_objects,
    "zip with a path": lambda _trap: zip_archive("../evil.csv"),
    "tar with a path": lambda _trap: tar_archive("/tmp/evil.csv"),  # noqa: S108  a name in an archive
    "gzip in gzip": lambda _trap: gzip.compress(gzip.compress(CSV)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_archives_and_pickles_are_refused_and_neither_unpacked_nor_run(tmp_path: Path, kind: str) -> None:
    trap, folder = tmp_path / "trap", tmp_path / "source"
    folder.mkdir()
    path = folder / "2013-01-09.csv"
    path.write_bytes(HOSTILE[kind](str(trap)))

    if kind == "pickle of protocol 0":  # which is text of one column
        assert read_csv(path, CsvDialect()).columns == ["cposix"]
    else:
        with pytest.raises(UnreadableError, match=r"2013-01-09\.csv: "):
            read_csv(path, CsvDialect())
    with pytest.raises(UnreadableError, match=r"2013-01-09\.csv: "):
        read_parquet(path)

    assert sorted(tmp_path.rglob("*")) == [folder, path]
