"""Every entity, view and service of this project's datasets, for `feast apply`, `feast plan` and `feast serve`."""

from pathlib import Path

from headrace.feast.repository import feast_objects

globals().update(feast_objects(Path(__file__).resolve().parent))
