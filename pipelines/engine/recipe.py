"""Recipes: the code, the parameters and the libraries that a stage's bytes come from, beside its inputs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.engine.code import closure, fingerprint
from pipelines.engine.stage import Stage
from pipelines.errors import HeadraceError
from pipelines.systems.dvc.files import load_yaml


@dataclass(frozen=True)
class Recipe:
    """What, beside the bytes of the inputs, decides the output's: all of it is in every memo key."""

    code: Mapping[str, str]
    params: Mapping[str, Any]
    libraries: Mapping[str, str]

    @property
    def key(self) -> bytes:
        """Hash of the recipe."""
        rest = json.dumps([self.params, self.libraries], sort_keys=True)
        return hashlib.sha256((fingerprint(self.code) + rest).encode()).digest()


def recipe_of(stage: Stage, root: Path) -> Recipe:
    """The recipe of `stage`: the code that runs here, and the parameters of the workspace `root`."""
    code, libraries = code_and_libraries(stage)
    return Recipe(code, {name: param(root, name) for name in stage.params}, libraries)


def code_and_libraries(stage: Stage) -> tuple[dict[str, str], dict[str, str]]:
    """File → hash of the stage's code, and library → version, as they run here."""
    return closure(stage.modules), {name: version(name) for name in stage.libraries}


def param(root: Path, name: str) -> Any:  # noqa: ANN401  whatever params.yaml holds
    """The parameter `name` (dotted) of the workspace's `params.yaml`.

    Raises:
        HeadraceError: There is none.
    """
    path = root / "params.yaml"
    found: Any = _params(path, path.stat().st_mtime_ns) if path.exists() else {}
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            raise HeadraceError(f"{path}: expected the parameter {name}, seen none. Add it, then run again.")
        found = found[part]
    return found


@cache
def _params(path: Path, _changed: int) -> dict[str, Any]:
    return load_yaml(path)
