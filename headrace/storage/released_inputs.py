"""Raw tables that are tables of other datasets at a release: their manifests name which."""

from dataclasses import dataclass

from headrace.storage.manifest import Manifest

TABLE, RELEASE = "released_table", "release"
"""Parameters in the manifest of such a raw table."""


@dataclass(frozen=True)
class ReleasedInput:
    """A table at a release.

    Attributes:
        table: `<state>/<dataset>/<name>`.
        release: The release.
    """

    table: str
    release: str

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> "ReleasedInput | None":
        """Where a raw table is from, if it is a table of another dataset."""
        found = manifest.params
        is_released = manifest.table.startswith("raw/") and TABLE in found and RELEASE in found
        return cls(str(found[TABLE]), str(found[RELEASE])) if is_released else None

    def to_params(self) -> dict[str, str]:
        """The parameters of the manifest."""
        return {TABLE: self.table, RELEASE: self.release}
