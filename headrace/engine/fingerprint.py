"""Fingerprints: what decides a stage's bytes beside its inputs, and is therefore in every cache key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from headrace.engine.code_hash import (
    SourceCode,
    current_hashes,
    fingerprint,
    library_version,
    normalized,
    project_folder,
    source_code,
)
from headrace.engine.result_versions import result_version
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError, TransientError
from headrace.storage.files import load_yaml


class CodeChangedError(TransientError):
    """A file that decides the stage's bytes changed after the plan was made: by the next run it is part of the plan."""


@dataclass(frozen=True)
class Fingerprint:
    """What decides a stage's bytes beside its inputs.

    Attributes:
        code: Source file → hash: the project's, those of packages that no index released, and declared data files.
        params: Parameter of `params.yaml` → value.
        libraries: Distribution → version: those that the code imports, and those that decide bytes.
        result_version: That of the stage's kind.
    """

    code: Mapping[str, str]
    params: Mapping[str, Any]
    libraries: Mapping[str, str]
    result_version: int = 1

    @property
    def key(self) -> bytes:
        """Hash of all of it."""
        return self.key_at(self.result_version)

    def key_at(self, version: int) -> bytes:
        """The key that the same fingerprint had under another result version."""
        rest = json.dumps([self.params, self.libraries, version], sort_keys=True)
        return hashlib.sha256((fingerprint(self.code) + rest).encode()).digest()


def stage_fingerprint(stage: Stage, root: Path) -> Fingerprint:
    """The fingerprint of `stage`: the code that runs here, and the parameters of the workspace `root`."""
    code = stage_code(stage)
    params = {name: parameter(root, name) for name in stage.params}
    return Fingerprint({**code.files, **code.packages}, params, code.libraries, result_version(stage.verb))


def check_code_unchanged(stage: Stage, made_with: Fingerprint) -> None:
    """Check that the stage's files still are what the fingerprint says, on disk and as this process has loaded them.

    Raises:
        CodeChangedError: A file is not.
    """
    root = project_folder(stage.modules)
    changed = [name for name, known in made_with.code.items() if _current_hashes(name, stage, root) != {known}]
    if changed:
        raise CodeChangedError(
            f"{stage.table}: {', '.join(changed)} changed while this run was at work (in {root}), so it can no longer"
            " say which code made what. Nothing was written since. Run the same command again; `--run` works in a"
            " worktree that nobody edits."
        )


def _current_hashes(name: str, stage: Stage, root: Path) -> set[str]:
    if name not in stage.files:
        return current_hashes(name, root)
    return {_data_hash(root / name, stage) if (root / name).is_file() else ""}


def stage_code(stage: Stage, root: Path | None = None) -> SourceCode:
    """The code and the libraries of `stage`, and its declared data files.

    Args:
        stage: The stage.
        root: The project; by default the one whose code runs here.

    Raises:
        HeadraceError: A declared file is missing.
    """
    code = source_code(stage.modules, root)
    folder = root or project_folder(stage.modules)
    data = {name: _data_hash(folder / name, stage) for name in stage.files}
    libraries = {normalized(name): library_version(name) for name in stage.libraries}
    return SourceCode(dict(sorted({**code.files, **data}.items())), code.packages, {**code.libraries, **libraries})


def parameter(root: Path, name: str) -> Any:  # noqa: ANN401  whatever params.yaml holds
    """The parameter `name` (dotted) of the workspace's `params.yaml`.

    Raises:
        HeadraceError: There is none.
    """
    path = root / "params.yaml"
    found: Any = _params(path, path.stat().st_mtime_ns) if path.exists() else {}
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            raise HeadraceError(f"{path}: expected the parameter {name}, found none. Add it, then run again.")
        found = found[part]
    return found


def _data_hash(path: Path, stage: Stage) -> str:
    try:
        return _file_hash(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise HeadraceError(
            f"{stage.table}: the declared file {path} cannot be read: {error.strerror}. `files=(…)` names paths below"
            " the project's root; correct the declaration or add the file."
        ) from None


@cache
def _file_hash(path: Path, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


@cache
def _params(path: Path, _changed: int) -> dict[str, Any]:
    return load_yaml(path)
