"""Every entity, view and service of every dataset, for `feast apply`, `feast plan` and `feast serve`.

They are made from the declarations in `pipelines/datasets/`, and each gets a name in this module: Feast registers only
what it finds under one. Which side is live, and what it holds, comes from the registry: applying by hand switches
nothing, only `headrace publish` does.
"""

from pathlib import Path

from pipelines.datasets import NAMES, load
from pipelines.settings import here
from pipelines.systems.feature_store.definitions import Standing, objects, refuse_same_names
from pipelines.systems.feature_store.store import open_store

_HERE = Path(__file__).resolve().parent
_store = open_store(_HERE, here(_HERE.parent))

_datasets = [_dataset for _dataset in map(load, NAMES) if _dataset.features]
refuse_same_names(_datasets)
for _dataset in _datasets:
    for _object in objects(_dataset, Standing.of(_store, _dataset)):
        globals()[f"{_object.name}_{type(_object).__name__.lower()}"] = _object
