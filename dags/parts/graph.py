"""What there is to run: the stages of `dvc.yaml`, which `headrace stages --write` makes from the declarations.

A declaration itself loads the data libraries, which no DAG file shall pay for.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import yaml

DVC_YAML = Path(__file__).parents[2] / "dvc.yaml"
STAGE = re.compile(r"(?P<dataset>[a-z0-9_]+)-(?P<verb>validate|transform|label)-(?P<table>[a-z0-9_]+)")

Tables = Mapping[str, list[str]]
"""Verb → tables that it makes."""


def datasets(path: Path = DVC_YAML) -> dict[str, Tables]:
    """Dataset → its tables, as declared."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"validate": [], "transform": [], "label": []})
    for name in yaml.load(path.read_text(), yaml.CSafeLoader)["stages"]:
        if stage := STAGE.fullmatch(name):
            found[stage["dataset"]][stage["verb"]].append(stage["table"])
    return dict(found)
