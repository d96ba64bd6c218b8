"""What a run sends to a Dask worker."""

import pickle
from pathlib import Path

from headrace.project.worker_task import WorkerStorage
from headrace.storage.dvc.cache import Cache
from headrace.storage.dvc.remote import Remote
from headrace.storage.s3.bucket import Bucket
from headrace.storage.table_store import TableStore


def test_credentials_of_the_remote_are_not_sent_to_a_worker(tmp_path: Path) -> None:
    canary = "canary"
    bucket = Bucket("lake", endpoint="http://127.0.0.1:1", access_key=canary, secret_key=canary)
    cache = Cache(tmp_path, tmp_path, is_remote_only=True, remote_override=Remote(bucket, "dvc"))

    sent = pickle.dumps(WorkerStorage.from_table_store(TableStore(tmp_path, cache)))

    assert b"lake" in sent
    assert canary.encode() not in sent
