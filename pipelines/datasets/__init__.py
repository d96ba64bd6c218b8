"""The datasets there are: one folder each, and one word here."""

from importlib import import_module

from pipelines.dataset import Dataset
from pipelines.errors import HeadraceError

NAMES = ("flights", "digits")


def load(name: str) -> Dataset:
    """The declaration of the dataset `name`.

    Raises:
        HeadraceError: There is no such dataset.
    """
    if name not in NAMES:
        raise HeadraceError(
            f"There is no dataset {name!r}. Declared in pipelines/datasets/: {', '.join(NAMES)}."
            " To add one, see docs/add-your-dataset.md."
        )
    import_module("pipelines.systems.pandera")  # before a declaration brings it in together with pandas
    dataset: Dataset = import_module(f"pipelines.datasets.{name}").DATASET
    return dataset
