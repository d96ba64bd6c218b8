"""What there is to run: the stages of `dvc.yaml`, which `headrace dvc-sync` makes from the declarations.

A declaration itself loads the data libraries, which no DAG file shall pay for.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import yaml

STAGE = re.compile(r"(?P<dataset>[a-z0-9_]+)-(?P<verb>validate|transform|label)-(?P<table>[a-z0-9_]+)")

Tables = Mapping[str, list[str]]
"""Verb → tables that it makes."""


def dataset_tables(project: Path) -> dict[str, Tables]:
    """Dataset → its tables, as `dvc.yaml` of the project has them."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"validate": [], "transform": [], "label": []})
    for name in yaml.load((project / "dvc.yaml").read_text(), yaml.CSafeLoader)["stages"] or ():
        if stage := STAGE.fullmatch(name):
            found[stage["dataset"]][stage["verb"]].append(stage["table"])
    return dict(found)
