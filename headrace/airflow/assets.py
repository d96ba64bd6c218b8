"""What the DAGs tell each other about, and a person sees in the UI with its facts."""

from airflow.sdk import Asset


def release(dataset: str) -> Asset:
    """A version of all tables of the dataset. Its events carry the release, and per table what changed.

    An event says "look", no more: a run that finds the same release has nothing to do, and one event that is lost or
    late is made good by the next.
    """
    return Asset(f"{dataset}_release", uri=f"headrace://{dataset}/release", group=dataset)


def online(dataset: str) -> Asset:
    """The release that the online store answers from."""
    return Asset(f"{dataset}_online", uri=f"headrace://{dataset}/online", group=dataset)


def model(dataset: str) -> Asset:
    """The baseline model; its events carry the metrics."""
    return Asset(f"{dataset}_model", uri=f"headrace://{dataset}/model", group=dataset)
