"""How feature tables are read: what `feature_store.yaml` says under `offline_store`. Nothing here imports Feast."""

from pathlib import Path

import yaml
from pydantic import BaseModel, PositiveInt


class Reading(BaseModel):
    """The options of the offline store.

    Attributes:
        workspace: The git clone with the tables, relative to `feature_store.yaml`.
        as_known: Whether a request sees only what was known at its time. Off, it also sees what came in later about
            events before its time: corrections and late rows, which a model can not have at the moment of prediction.
        verify: Whether every file is hashed before it is read for the first time, and when it was touched since.
        memory_mb: Memory that a retrieval may use, in MiB, about: what does not fit is read a part at a time. An answer
            that is asked for whole (`to_df`, `to_polars`) takes its own room beside that; `to_parquet` and
            `to_batches` do not.
    """

    workspace: str = ".."
    as_known: bool = True
    verify: bool = True
    memory_mb: PositiveInt = 4096

    @classmethod
    def at(cls, repo: Path) -> "Reading":
        """The options that `feature_store.yaml` in `repo` sets."""
        written = yaml.safe_load((repo / "feature_store.yaml").read_text())
        return cls(**written.get("offline_store", {}))
