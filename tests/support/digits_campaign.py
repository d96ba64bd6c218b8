"""The dataset `digits` in a new bucket and workspace, with its labeling task on a real Label Studio."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from label_campaign import LabelingCampaign
from servers import S3

from headrace.engine.run import run_stage
from headrace.ingest.ingest import ingest
from headrace.project import graph
from headrace.project.executors import Executor
from headrace.project.loading import load_dataset
from headrace.storage.table_store import TableStore
from infra.demo import digits

if TYPE_CHECKING:
    from label_server import Annotator, LabelServer

PARAMS: Mapping[str, Any] = {"sample": 20, "seed": 7}


class DigitsCampaign(LabelingCampaign):
    """Validated pictures, and the labeling task about them."""

    @classmethod
    def create(cls, server: "LabelServer", s3: S3, root: Path, title: str, count: int) -> "DigitsCampaign":
        """Create `count` pictures in a new bucket, ingest and validate them."""
        bucket = s3.new_bucket()
        digits.upload_images(s3.client, bucket.name, count)
        settings = server.settings(HEADRACE_BUCKET=bucket.name, AWS_ENDPOINT_URL=s3.endpoint)
        dataset = load_dataset("digits")
        labeling = replace(dataset.labels[0], title=title[-50:])
        found = cls(server, TableStore.at(root), settings, replace(dataset, labels=(labeling,)), labeling, PARAMS)
        ingest(found.dataset, found.table_store, settings)
        for stage in graph.command_stages(found.dataset, "validate"):
            run_stage(stage, found.table_store, Executor(settings, lambda *_: None))
        return found

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Sample id → task on the server."""
        numbers = self.server.tasks(self.project)
        return {item: self.server.http.get(f"/api/tasks/{copies[0]}/").json() for item, copies in numbers.items()}


def submit_answer(annotator: "Annotator", task: Mapping[str, Any], digit: str | None) -> None:
    """Answer a task as the web page does; None skips it."""
    value = {"from_name": "digit", "to_name": "picture", "type": "choices", "value": {"choices": [digit]}}
    body = {"result": [value] if digit else [], "was_cancelled": digit is None, "lead_time": 2.0}
    annotator.http.post(f"/api/tasks/{task['id']}/annotations/", json=body).raise_for_status()
