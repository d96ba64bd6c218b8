"""A code bundle has one hash per content, is unpacked whole, and never outside of its folder."""

from pathlib import Path

import pytest

from headrace.project.code_bundle import CodeBundle, CodeBundleError

FILES = {"pipelines/__init__.py": b"", "pipelines/shop/__init__.py": b"total = 1\n", "zones.csv": b"zone\n1\n"}


def test_a_bundle_is_unpacked_below_a_folder_of_its_hash(tmp_path: Path) -> None:
    bundle = CodeBundle(FILES)

    folder = bundle.unpack(tmp_path)

    assert folder == tmp_path / bundle.hash
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")} == FILES
    assert bundle.unpack(tmp_path) == folder
    assert list(tmp_path.iterdir()) == [folder]
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "other",
    [
        {**FILES, "zones.csv": b"zone\n2\n"},
        {**FILES, "more.csv": b""},
        {"pipelines/__init__.pyp": b"", **{name: text for name, text in FILES.items() if name != "zones.csv"}},
    ],
)
def test_another_name_or_content_has_another_hash(other: dict[str, bytes]) -> None:
    assert CodeBundle(other).hash != CodeBundle(FILES).hash


def test_the_order_of_files_does_not_count() -> None:
    assert CodeBundle(dict(reversed(FILES.items()))).hash == CodeBundle(FILES).hash


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "", ".", "a/./b", "a//b", ".."])
def test_a_name_that_leads_elsewhere_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "worker"

    with pytest.raises(CodeBundleError, match="below the project's folder"):
        CodeBundle({**FILES, name: b"x"}).unpack(folder)

    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File exists"):
        CodeBundle({"zones": b"", "zones/europe.csv": b""}).unpack(tmp_path)

    assert list(tmp_path.iterdir()) == []
