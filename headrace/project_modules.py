"""Modules of a project, imported so that the bytes that Python compiled are known. Only the standard library is needed.

A fingerprint has to describe the code that runs. But a file may change between its import and the moment when it is
hashed, and Python takes a `.pyc` for current if size and second of change are equal. Here a module's file is read once:
what is compiled is what `loaded_source` returns, and a `.pyc` is used if it was compiled from equal bytes (length and
32 bits of a hash, which is what a `.pyc` has room for).
"""

import os
import sys
from importlib import invalidate_caches
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from importlib.util import source_hash
from pathlib import Path
from sysconfig import get_path

ENGINE = __name__.partition(".")[0]
INSTALLED = tuple(os.path.realpath(get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
"""Folders of what is installed: a virtual environment often lies in the project's folder."""

_sources: dict[str, bytes] = {}
_projects: list[str] = []


class ProjectLoader(SourceFileLoader):
    """Loads a module from bytes that are kept."""

    def path_stats(self, path: str) -> dict[str, int]:
        """Read the file; a hash of its bytes takes the place of the time by which Python judges a `.pyc`."""
        source = _sources[os.path.realpath(path)] = super().get_data(path)
        return {"mtime": int.from_bytes(source_hash(source)[:4], "little"), "size": len(source)}

    def get_data(self, path: str) -> bytes:
        """The bytes that `path_stats` has read, or those of another file, such as a `.pyc`."""
        kept = _sources.get(os.path.realpath(path)) if path == self.path else None
        return super().get_data(path) if kept is None else kept


def watch_imports(project: Path) -> None:
    """Import the modules below the folder `project` by `ProjectLoader` from here on."""
    folder = os.path.realpath(project)
    if folder in _projects:
        return
    if not _projects:
        sys.path_hooks.insert(0, _find_in)
    _projects.append(folder)
    for path in filter(_is_watched, list(sys.path_importer_cache)):
        sys.path_importer_cache.pop(path, None)
    invalidate_caches()


def loaded_source(path: Path) -> bytes | None:
    """The bytes that the module of this file was compiled from; None if no module of a watched project was."""
    return _sources.get(os.path.realpath(path))


def is_installed(path: str) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    return any(_is_below(os.path.realpath(path), folder) for folder in INSTALLED)


def project_path(path: str) -> str:
    """A file's path below its project, for messages; that of another file as it is."""
    found = os.path.realpath(path)
    project = next((folder for folder in _projects if _is_below(found, folder)), None)
    return os.path.relpath(found, project) if project else path


def _find_in(path: str) -> FileFinder:
    """A path hook: finds the modules of a watched folder."""
    if not _is_watched(path) or not os.path.isdir(path or "."):  # noqa: PTH112  called for every folder of the path
        raise ImportError(f"{path} is no folder of a watched project", path=path)
    return FileFinder(path, (ExtensionFileLoader, EXTENSION_SUFFIXES), (ProjectLoader, SOURCE_SUFFIXES))


def _is_watched(path: str) -> bool:
    found = os.path.realpath(path or ".")
    project = next((folder for folder in _projects if _is_below(found, folder)), None)
    apart = (f"{project}/{ENGINE}", *INSTALLED)
    return project is not None and not any(_is_below(found, folder) for folder in apart)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}{os.sep}")
