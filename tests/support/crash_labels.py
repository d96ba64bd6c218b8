"""`label collect` of answers that were added, changed and deleted since the last time, for `crash_harness`."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from crash_harness import Seen
from crash_state import VISIBLE, copied, files, whole
from label_campaign import ANNOTATIONS, LABELS, REJECTED, Campaign
from label_server import LabelServer


@dataclass(frozen=True)
class Collect:
    """One workspace; on the server nothing changes any more."""

    root: Path
    url: str
    token: str
    title: str

    @property
    def campaign(self) -> Campaign:
        """The labeling task there."""
        return Campaign(LabelServer(self.url, self.token), self.root, self.title)

    def run(self) -> None:
        """As `Case`."""
        self.campaign.collect()

    def seen(self) -> Seen:
        """As `Case`."""
        return whole(self.campaign.lake, (ANNOTATIONS, LABELS, REJECTED))

    def shown(self) -> Seen:
        """As `Case`."""
        return files(self.root, *VISIBLE)


@dataclass(frozen=True)
class Collects:
    """The workspace as the test left it: answers were collected, and others were given since."""

    template: Collect

    def prepare(self) -> None:
        """As `Scenario`: the test did."""

    def case(self, name: str) -> Collect:
        """As `Scenario`."""
        return replace(self.template, root=copied(self.template.root, name))

    def over(self, name: str) -> None:
        """As `Scenario`."""
        shutil.rmtree(self.template.root.with_name(name))


def scenario(folder: Path, root: str, url: str, token: str, title: str) -> Collects:
    """What `crash_harness` runs."""
    folder.mkdir()
    return Collects(Collect(Path(root), url, token, title))
