"""label collect, on answers that came, changed and went since the last time; rehearsed by `crashes.py`."""

import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from crashes import Seen
from label_campaign import ANNOTATIONS, LABELS, REJECTED, Campaign
from label_server import LabelServer

from pipelines.systems.dvc.objects import md5_of


@dataclass(frozen=True)
class Collect:
    """One workspace; what is asked and answered stands still."""

    root: Path
    url: str
    token: str
    title: str

    @property
    def campaign(self) -> Campaign:
        """The question there."""
        return Campaign(LabelServer(self.url, self.token), self.root, self.title)

    def run(self) -> None:
        """As `Case`."""
        self.campaign.collect()

    def seen(self) -> Seen:
        """As `Case`."""
        lake, tables = self.campaign.lake, (ANNOTATIONS, LABELS, REJECTED)
        for table in tables:
            entries = lake.manifest(table).partitions
            for name, path in lake.paths(table).items():
                assert md5_of(path) == entries[name].md5, f"{table} {name}"
        return {table: lake.manifest(table).to_bytes() for table in tables}

    def shown(self) -> Seen:
        """As `Case`."""
        folders = (self.root / name for name in ("data", ".headrace/journal"))
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.root)): sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class Collects:
    """The workspace as the test left it: answers were collected, and others given since."""

    template: Collect

    def prepare(self) -> None:
        """As `Scenario`: the test did."""

    def case(self, name: str) -> Collect:
        """As `Scenario`."""
        mine = self.template
        root = mine.root.with_name(name)
        shutil.copytree(mine.root, root)
        return Collect(root, mine.url, mine.token, mine.title)

    def over(self, name: str) -> None:
        """As `Scenario`."""
        shutil.rmtree(self.template.root.with_name(name))


def scenario(folder: Path, root: str, url: str, token: str, title: str) -> Collects:
    """The rehearsal of a collect."""
    folder.mkdir()
    return Collects(Collect(Path(root), url, token, title))
