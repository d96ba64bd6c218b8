"""The story: two weeks arrive; a day, a correction and a deletion; people label; a model is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from infra.demo.airflow import Airflow, Run
from infra.demo.data import Year
from infra.demo.load import Sources
from infra.demo.people import SimulatedAnnotator
from infra.demo.screen import Screen

FIRST_DAYS = tuple(date(2013, 1, day) for day in range(1, 15))
NEW_DAY, CORRECTED_DAY, DELETED_DAY = date(2013, 1, 15), date(2013, 1, 9), date(2013, 1, 12)
DAGS = ("flights_refresh", "flights_labels", "flights_training")

Json = dict[str, Any]


@dataclass
class Story:
    """What happened, for the summary.

    Attributes:
        arrived: What was put into the sources, a line each.
        refreshes: Title → task → what it found.
        labels: Task → what it found.
        answers: Simulated answer → how often.
        metrics: What the training measured.
        events: What the assets told.
    """

    arrived: list[str] = field(default_factory=list)
    refreshes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Json] = ()


@dataclass
class Teller:
    """Tells the story in a running stack."""

    screen: Screen
    env: Mapping[str, str]
    airflow: Airflow
    sources: Sources
    story: Story = field(default_factory=Story)

    @classmethod
    def of(cls, screen: Screen, env: Mapping[str, str], logs: Path) -> "Teller":
        """In the stack whose `stack.env` this is."""
        return cls(screen, env, Airflow.of(env, logs / "airflow"), Sources.of(env, Year.installed()))

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
        people = SimulatedAnnotator(self.env)
        run = self.airflow.trigger("flights_labels", poll_s=1)
        with self.screen.run("flights_labels, triggered") as show:
            for tasks in self.airflow.steps(run):
                show(tasks)
                waits = any(task.id == "wait" and task.state == "deferred" for task in tasks)
                if waits and not self.story.answers:
                    self.story.answers = people.answer_all(self.airflow.found(run, "send")["project"])
        self.story.labels = self._found(run)
        told = ", ".join(f"{answer} {count}" for answer, count in sorted(self.story.answers.items()))
        self.screen.say(f"  simulated answers, through an annotator's own account: {told}")
        self.screen.say("  until they were there, the wait was deferred: it held no worker")

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
