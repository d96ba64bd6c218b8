"""A project's code as one value: it travels to Dask workers and is unpacked there in a folder named after its hash."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp

from headrace.errors import HeadraceError


class CodeBundleError(HeadraceError):
    """A code bundle names a file that would be written outside of its folder."""


@dataclass(frozen=True)
class CodeBundle:
    """Source files and declared data files of a project.

    Attributes:
        files: Path below the project's root → content.
    """

    files: Mapping[str, bytes]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names and contents."""
        hashed = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            hashed.update(f"{name}\0{len(content)}\0".encode())
            hashed.update(content)
        return hashed.hexdigest()

    # no failpoint: a folder of one Dask worker, complete before it gets the name that readers know
    def unpack(self, parent: Path) -> Path:
        """Write the files to the folder `<hash>` in `parent`, unless it exists; return the folder.

        Raises:
            CodeBundleError: A name leads outside of the folder. Nothing is written.
        """
        folder = parent / self.hash
        if folder.exists():
            return folder
        _check_names(self.files)
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(mkdtemp(dir=parent))  # which nobody else may enter
        try:
            for name, content in self.files.items():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return folder


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or str(path) != name or name == ".":
            raise CodeBundleError(
                f"code bundle: expected paths below the project's folder, found {name!r}. Nothing was written, and"
                " nothing was run. Look for the dataset that declares it: `headrace check`."
            )
