"""The story: two weeks arrive; a day, a correction and a deletion; people label, pictures too; a model is trained."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from infra.demo import digits
from infra.demo.airflow import Airflow, Run, Task
from infra.demo.cli_runner import Typed
from infra.demo.data import Year
from infra.demo.screen import Screen
from infra.demo.seed_sources import Sources
from infra.demo.simulated_annotators import Team, cause_of

FIRST_DAYS = tuple(date(2013, 1, day) for day in range(1, 15))
NEW_DAY, CORRECTED_DAY, DELETED_DAY = date(2013, 1, 15), date(2013, 1, 9), date(2013, 1, 12)
PICTURES = 60
WAITING = ("deferred", "awaiting_input")
READING_S = 3
"""Airflow fails a task that is answered before its scheduler has heard that it waits; a person reads that long."""
DEADLINE_H = 0.05
ENOUGH = 0.85
"""Share of tasks that ends a wait: one that somebody has open is handed to nobody else for hours."""
DAGS = ("flights_refresh", "flights_label_delay_cause", "flights_training")

Json = dict[str, Any]


@dataclass
class Story:
    """What happened, for the summary.

    Attributes:
        arrived: What was put into the sources, a line each.
        refreshes: Title → task → what it found.
        labels: Task → what it found.
        answers: Simulated annotator → answers given, in each round.
        quality: Question → what the report says of the answers, its accuracy against the hidden truth, and how many
            items were asked again.
        metrics: What the training measured.
        events: What the assets told.
    """

    arrived: list[str] = field(default_factory=list)
    refreshes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    answers: list[Mapping[str, int]] = field(default_factory=list)
    quality: dict[str, Json] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Json] = ()


@dataclass
class Teller:
    """Tells the story in a running stack."""

    screen: Screen
    env: Mapping[str, str]
    airflow: Airflow
    sources: Sources
    typed: Typed
    story: Story = field(default_factory=Story)

    @classmethod
    def of(cls, screen: Screen, env: Mapping[str, str], logs: Path) -> "Teller":
        """In the stack whose `stack.env` this is."""
        sources = Sources.of(env, Year.installed())
        return cls(screen, env, Airflow.of(env, logs / "airflow"), sources, Typed.of(env, logs.parent / "workspace"))

    @cached_property
    def team(self) -> Team:
        """Who labels."""
        return Team.of(self.env)

    def tell(self) -> Story:
        """All chapters."""
        with self.screen.chapter("Two weeks of January 2013 arrive"):
            self._two_weeks()
        with self.screen.chapter("A day arrives, a late correction, and an object is taken back"):
            self._changes()
        with self.screen.chapter("People say what caused the delays"):
            self._labels()
        with self.screen.chapter("The release starts the training"):
            self._training()
        with self.screen.chapter("A second dataset: pictures of digits, and the same people"):
            self._digits()
        self.story.events = self.airflow.asset_events()
        return self.story

    def _two_weeks(self) -> None:
        self.sources.open()
        flights = self.sources.arrive(FIRST_DAYS)
        self._arrived(f"1 to 14 January: {flights:,} flights in 14 objects, the weather in PostgreSQL")
        self.airflow.wait_for_dags(DAGS)
        self.airflow.pause("flights_training")  # it is told later
        self._refresh("1 to 14 January")

    def _changes(self) -> None:
        flights = self.sources.arrive([NEW_DAY])
        self.sources.correct(CORRECTED_DAY)
        self.sources.delete(DELETED_DAY)
        self._arrived(f"15 January: {flights:,} flights, the weather")
        self._arrived("9 January: a late correction, five flights were 25 minutes later than reported")
        self._arrived("12 January: the object is deleted")
        self._refresh("15 January, and two changes")

    def _labels(self) -> None:
        self.airflow.pause("flights_training", paused=False)
        run = self.airflow.trigger("flights_label_delay_cause", poll_s=1, share=ENOUGH, hours=DEADLINE_H)
        with self.screen.run("flights_label_delay_cause, triggered") as show:
            for tasks in self.airflow.steps(run):
                show(tasks)
                self._play(run, tasks)
        self.story.labels = self._found(run)
        self._measured("delay_cause", "flights", self.story.labels["measure"], self.story.labels["again"])
        self.screen.say("  until people answered, the waits were deferred: they held no worker")
        self.screen.say("  a person (here: the demo) accepted the answers before they were released")

    def _play(self, run: Run, tasks: Sequence[Task]) -> None:
        """Do what people do, when a run waits for them: answer, answer again, accept."""
        waiting = {task.id.rsplit(".", 1)[-1]: task.id for task in tasks if task.state in WAITING}
        rounds = ("wait", "wait_again")
        if len(self.story.answers) < len(rounds) and rounds[len(self.story.answers)] in waiting:
            project = self.airflow.found(run, "send")["project"]
            self.story.answers.append(self.team.answer_all(project, cause_of))
        if "accept" in waiting:
            time.sleep(READING_S)
            self.airflow.approve(run, waiting["accept"])

    def _digits(self) -> None:
        """The commands that a person would type."""
        arrived = digits.put(self.sources.storage, self.sources.bucket, PICTURES)
        self._arrived(f"pictures of handwritten digits: {len(arrived)} PNG objects, and the true digit of some")
        truth = digits.truth()

        def right(data: Mapping[str, Any]) -> str:
            return truth[data["sample_id"]]

        for verb in ("ingest", "validate"):
            self.typed.run(verb, "digits")
        sent = self.typed.run("label", "send", "digits")
        suggested = f"{sent['suggested']} with an answer suggested by {sent['model']}"
        self.screen.say(f"  {sent['sent']} questions sent, {suggested}")
        self.team.answer_all(sent["project"], right)
        self.typed.run("label", "collect", "digits")
        again = self.typed.run("label", "request-more", "digits")
        self.team.answer_all(sent["project"], right)
        self.typed.run("label", "collect", "digits")
        self._measured("digit", "digits", self.typed.run("label", "report", "digits", "--gate"), again)
        released = self.typed.run("release", "digits")
        self.screen.say(f"  the labels reach the declared thresholds; {released['name']} released")

    def _measured(self, labeling: str, dataset: str, report: Json, again: Json) -> None:
        """Compare the labels with the truth that only the demo knows."""
        found = pl.read_parquet(self.typed.workspace / "data" / "labels" / dataset / labeling / "*.parquet")
        pairs = list(found.select("sample_id", "label").iter_rows())
        right = sum(self.team.truth[item] == label for item, label in pairs) / len(pairs)
        self.story.quality[labeling] = {**report["quality"], "truth": right, "again": len(again["items"])}
        asked_again = f"{len(again['items'])} items in doubt were sent back to a third"
        self.screen.say(f"  {labeling}: {len(pairs)} labels, {right:.1%} right against the hidden truth; {asked_again}")

    def _training(self) -> None:
        run = self.airflow.next_run("flights_training")
        with self.screen.run("flights_training, started by the asset flights_release") as show:
            self.airflow.follow(run, show)
        self.story.metrics = self.airflow.found(run, "train")

    def _refresh(self, title: str) -> None:
        run = self.airflow.trigger("flights_refresh")
        with self.screen.run("flights_refresh, triggered") as show:
            self.airflow.follow(run, show)
        self.story.refreshes[title] = found = self._found(run)
        self.screen.say(f"  {found['version']['name']} released, and served from side {found['publish']['side']}")

    def _arrived(self, line: str) -> None:
        self.story.arrived.append(line)
        self.screen.say(f"  {line}")

    def _found(self, run: Run) -> Mapping[str, Any]:
        """Task → what it found, for those that found anything."""
        return {
            task.id.rsplit(".", 1)[-1]: self.airflow.found(run, task.id)
            for task in self.airflow.tasks(run)
            if task.id.rsplit(".", 1)[-1] != "workspace"
        }
