"""Assets: how DAGs start each other, and where the UI shows what a run produced."""

from airflow.sdk import Asset


def release_asset(dataset: str) -> Asset:
    """A release of all tables of the dataset. Its events carry the release and, per table, what changed.

    An event is only a hint to look: a run that finds the same release has nothing to do, and the next event makes up
    for one that is lost or late.
    """
    return Asset(f"{dataset}_release", uri=f"headrace://{dataset}/release", group=dataset)


def online_asset(dataset: str) -> Asset:
    """The release that the online store serves."""
    return Asset(f"{dataset}_online", uri=f"headrace://{dataset}/online", group=dataset)


def model_asset(dataset: str) -> Asset:
    """The model; its events carry the metrics."""
    return Asset(f"{dataset}_model", uri=f"headrace://{dataset}/model", group=dataset)
