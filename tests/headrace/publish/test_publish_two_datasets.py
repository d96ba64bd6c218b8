"""Two datasets with one registry and one online store are published side by side: neither overtakes the other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import feature_workspace
import pytest
from feature_workspace import AIRCRAFT, DATASET, FLOWN, another, fill, fill_all, settings
from online_stores import KINDS, OnlineStore, new_store, redis_port
from outages import at, before

from headrace.publish.blue_green import Attempt
from headrace.publish.publish import PublishResult, publish
from headrace.storage.table_store import Lake

__all__ = ["new_store", "redis_port"]


@pytest.fixture(params=KINDS)
def lake(request: pytest.FixtureRequest, new_store: Callable[[str], OnlineStore], tmp_path: Path) -> Iterator[Lake]:
    """A workspace with the tables of two datasets."""
    found = feature_workspace.workspace(tmp_path / "workspace")
    new_store(request.param).serve(found.root)
    fill_all(found)
    yield found
    feature_workspace.close_all()


MOMENTS: dict[str, Callable[[pytest.MonkeyPatch, Callable[[], object]], None]] = {
    "within the load": lambda patch, do: at(patch, "online values", do, 2),
    "before the switch": lambda patch, do: before(patch, Attempt, "switch", do),
}


@pytest.mark.slow
@pytest.mark.parametrize("when", MOMENTS)
def test_a_publish_goes_on_where_another_dataset_was_published_meanwhile(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    other, meanwhile = another(lake), list[PublishResult]()
    publish(DATASET, lake, settings(lake.root))
    fill(lake, AIRCRAFT, FLOWN)
    with monkeypatch.context() as patch:
        MOMENTS[when](patch, lambda: meanwhile.append(publish(other, lake, settings(lake.root))))

        mine = publish(DATASET, lake, settings(lake.root))

    assert (mine.switched, [done.switched for done in meanwhile]) == (True, [True])
    assert not publish(DATASET, lake, settings(lake.root)).switched
    assert not publish(other, lake, settings(lake.root)).switched
    assert feature_workspace.served(lake, ["N2"]) == [-4.0]
