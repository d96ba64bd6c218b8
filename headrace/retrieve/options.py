"""Options of the offline store: `offline_store` in `feature_store.yaml`. Nothing here imports Feast."""

from pathlib import Path

import yaml
from pydantic import BaseModel, PositiveInt


class OfflineStoreOptions(BaseModel):
    """The options of the offline store.

    Attributes:
        workspace: The git clone with the tables, relative to `feature_store.yaml`.
        as_known: Whether a request sees only what was known at its time. If off, it also sees what came later about
            events before its time: corrections and late rows, which a model does not have when it predicts.
        verify: Whether every file is hashed before it is first read, and again if it was modified since.
        memory_mb: Memory that a retrieval may use, in MiB, about: what does not fit is read a part at a time. A result
            in memory (`to_df`, `to_polars`) needs its own memory beside that; `to_parquet` and `to_batches` do not.
    """

    workspace: str = ".."
    as_known: bool = True
    verify: bool = True
    memory_mb: PositiveInt = 4096

    @classmethod
    def at(cls, repo: Path) -> "OfflineStoreOptions":
        """The options that `feature_store.yaml` in `repo` sets."""
        written = yaml.safe_load((repo / "feature_store.yaml").read_text())
        return cls(**written.get("offline_store", {}))
