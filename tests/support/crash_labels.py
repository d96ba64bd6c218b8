"""Crash cases of `label collect`: answers were added, changed and deleted since the last collect."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from crash_harness import State
from crash_state import VISIBLE_FOLDERS, copy_workspace, hash_files, read_intact_tables
from label_campaign import ANNOTATIONS, LABELS, REJECTED, Campaign
from label_server import LabelServer


@dataclass(frozen=True)
class CollectCase:
    """A workspace; the server's answers do not change any more."""

    root: Path
    url: str
    token: str
    title: str

    @property
    def campaign(self) -> Campaign:
        """The labeling task of the workspace."""
        return Campaign(LabelServer(self.url, self.token), self.root, self.title)

    def run(self) -> None:
        self.campaign.collect()

    def read_visible_state(self) -> State:
        return read_intact_tables(self.campaign.table_store, (ANNOTATIONS, LABELS, REJECTED))

    def read_final_state(self) -> State:
        return hash_files(self.root, *VISIBLE_FOLDERS)


@dataclass(frozen=True)
class CollectScenario:
    """The workspace as the test left it: answers were collected, and others were submitted since."""

    template: CollectCase

    def prepare(self) -> None:
        """Nothing to do: the test has prepared the workspace and the server."""

    def new_case(self, name: str) -> CollectCase:
        return replace(self.template, root=copy_workspace(self.template.root, name))

    def remove_case(self, name: str) -> None:
        shutil.rmtree(self.template.root.with_name(name))


def scenario(folder: Path, root: str, url: str, token: str, title: str) -> CollectScenario:
    """The crash scenario of a collect."""
    folder.mkdir()
    return CollectScenario(CollectCase(Path(root), url, token, title))
