"""The scenario: two weeks arrive; a day, a correction and a deletion; people label, images too; a model is trained."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from headrace.validate.reserved_names import FAILED_CHECKS, ROW
from infra.demo import digits
from infra.demo.airflow_client import AirflowClient, DagRun, TaskInstance
from infra.demo.cli_runner import CliRunner
from infra.demo.data import FlightYear
from infra.demo.demo_console import DemoConsole
from infra.demo.seed_sources import SourceSystems
from infra.demo.simulated_annotators import AnnotatorTeam, true_cause

FIRST_DAYS = tuple(date(2013, 1, day) for day in range(1, 15))
NEW_DAY, CORRECTED_DAY, DELETED_DAY = date(2013, 1, 15), date(2013, 1, 9), date(2013, 1, 12)
DIGIT_IMAGES = 60
WAITING_STATES = ("deferred", "awaiting_input")
WAIT_TASKS = ("wait", "wait_again")
READING_S = 3
"""Airflow fails a task that is answered before its scheduler knows that it waits; a person reads that long."""
DEADLINE_H = 0.05
ANSWERED_SHARE = 0.85
"""Share of tasks that ends a wait: Label Studio locks a task that somebody has open for hours."""
DAGS = ("flights_refresh", "flights_label_delay_cause", "flights_training")

Json = dict[str, Any]


@dataclass
class ScenarioResult:
    """What happened, for the summary.

    Attributes:
        arrivals: What was put into the sources, one line each.
        refreshes: Title → task → its result.
        rejected: Rejected rows of the last refresh: one line per table and check, with an example.
        labels: Task → its result.
        answers: Simulated annotator → number of answers, for each round.
        quality: Labeling task → the report on its answers, the accuracy of the labels against the hidden truth, and the
            number of items for which more answers were requested.
        metrics: Metrics of the model.
        events: Events of the assets.
    """

    arrivals: list[str] = field(default_factory=list)
    refreshes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    labels: Mapping[str, Any] = field(default_factory=dict)
    answers: list[Mapping[str, int]] = field(default_factory=list)
    quality: dict[str, Json] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Json] = ()


@dataclass
class Scenario:
    """Runs the scenario on a running stack."""

    console: DemoConsole
    env: Mapping[str, str]
    airflow: AirflowClient
    sources: SourceSystems
    cli: CliRunner
    result: ScenarioResult = field(default_factory=ScenarioResult)

    @classmethod
    def create(cls, console: DemoConsole, env: Mapping[str, str], logs: Path) -> "Scenario":
        """On the stack whose `stack.env` is given."""
        airflow = AirflowClient.connect(env, logs / "airflow")
        sources = SourceSystems.connect(env, FlightYear.installed())
        return cls(console, env, airflow, sources, CliRunner.create(env, logs.parent / "workspace"))

    @cached_property
    def annotators(self) -> AnnotatorTeam:
        """The simulated annotators."""
        return AnnotatorTeam.create(self.env)

    def run(self) -> ScenarioResult:
        """All sections."""
        with self.console.section("Two weeks of January 2013 arrive"):
            self._first_refresh()
        with self.console.section("A day arrives, a late correction, and an object is deleted"):
            self._second_refresh()
        with self.console.section("Annotators say what caused the delays"):
            self._label_delays()
        with self.console.section("The release starts the training"):
            self._train()
        with self.console.section("A second dataset: images of digits, and the same annotators"):
            self._label_digits()
        self.result.events = self.airflow.asset_events()
        return self.result

    def _first_refresh(self) -> None:
        self.sources.create()
        flights = self.sources.add_days(FIRST_DAYS)
        self._record_arrival(f"1 to 14 January: {flights:,} flights in 14 objects, the weather in PostgreSQL")
        self.airflow.wait_for_dags(DAGS)
        self.airflow.pause("flights_training")  # it has its own section, later
        self._refresh("1 to 14 January")

    def _second_refresh(self) -> None:
        flights = self.sources.add_days([NEW_DAY])
        self.sources.correct_day(CORRECTED_DAY)
        self.sources.delete_day(DELETED_DAY)
        self._record_arrival(f"15 January: {flights:,} flights, the weather")
        self._record_arrival("9 January: a late correction, five flights were 25 minutes later than reported")
        self._record_arrival("12 January: the object is deleted")
        self._refresh("15 January, and two changes")

    def _refresh(self, title: str) -> None:
        run = self.airflow.trigger("flights_refresh")
        with self.console.dag_run("flights_refresh, triggered") as show:
            self.airflow.follow(run, show)
        self.result.refreshes[title] = results = self._task_results(run)
        released, published = results["release"], results["publish"]
        self.result.rejected = [*self._rejected(results["validate"]["stages"])]
        self.console.print(f"  {released['name']} released, and served from slot {published['slot']}")

    def _rejected(self, stages: Sequence[Json]) -> Iterator[str]:
        for stage in stages:
            _, dataset, table = stage["table"].split("/")
            for check, rows in stage["checks"].items():
                example = self._rejected_row(dataset, table, check)
                yield f"rejected {table}: {rows:,} of {stage['totals']['rows_in']:,} by {check} ({example})"

    def _rejected_row(self, dataset: str, table: str, check: str) -> str:
        """A row that failed the check: its first column, and those that the check names."""
        query = f"SELECT * FROM rejected.{table} WHERE list_contains({FAILED_CHECKS}, '{check}') LIMIT 1"  # noqa: S608  declared names
        row = self.cli.query(dataset, query)[0]
        data = [name for name in row if name not in (ROW, FAILED_CHECKS)]
        named = [name for name in data if re.search(rf"(?<![^|_]){name}(?![^|_])", check)]
        return ", ".join(f"{name} {row[name]}" for name in dict.fromkeys([data[0], *named]))

    def _label_delays(self) -> None:
        self.airflow.pause("flights_training", paused=False)
        run = self.airflow.trigger("flights_label_delay_cause", poll_s=1, share=ANSWERED_SHARE, hours=DEADLINE_H)
        with self.console.dag_run("flights_label_delay_cause, triggered") as show:
            for tasks in self.airflow.poll_tasks(run):
                show(tasks)
                self._act_for_people(run, tasks)
        self.result.labels = results = self._task_results(run)
        self._measure_labels("delay_cause", "flights", results["measure"], results["request_more"])
        self.console.print("  until people answered, the waits were deferred: they held no worker")
        self.console.print("  a person (here: the demo) accepted the answers before they were released")

    def _act_for_people(self, run: DagRun, tasks: Sequence[TaskInstance]) -> None:
        """Do what people do when a run waits for them: answer, answer once more, accept."""
        waiting = {task.name: task.id for task in tasks if task.state in WAITING_STATES}
        done = len(self.result.answers)
        if done < len(WAIT_TASKS) and WAIT_TASKS[done] in waiting:
            project = self.airflow.task_result(run, "send")["project_url"]
            self.result.answers.append(self.annotators.answer_all(project, true_cause))
        if "accept" in waiting:
            time.sleep(READING_S)
            self.airflow.approve(run, waiting["accept"])

    def _train(self) -> None:
        run = self.airflow.wait_for_dag_run("flights_training")
        with self.console.dag_run("flights_training, started by the asset flights_release") as show:
            self.airflow.follow(run, show)
        self.result.metrics = self.airflow.task_result(run, "train")["result"]

    def _label_digits(self) -> None:
        """The commands that a person types."""
        images = digits.upload_images(self.sources.s3, self.sources.bucket, DIGIT_IMAGES)
        self._record_arrival(f"images of handwritten digits: {len(images)} PNG objects, and the true digits of some")
        truth = digits.true_digits()

        def true_digit(data: Mapping[str, Any]) -> str:
            return truth[data["sample_id"]]

        for command in ("ingest", "validate"):
            self.cli.run(command, "digits")
        sent = self.cli.run("label", "send", "digits")
        suggestions = f"{sent['suggestions']} with an answer suggested by {sent['model_version']}"
        self.console.print(f"  {sent['sent']} questions sent, {suggestions}")
        self.annotators.answer_all(sent["project_url"], true_digit)
        self.cli.run("label", "collect", "digits")
        requested = self.cli.run("label", "request-more", "digits")
        self.annotators.answer_all(sent["project_url"], true_digit)
        self.cli.run("label", "collect", "digits")
        self._measure_labels("digit", "digits", self.cli.run("label", "report", "digits", "--gate"), requested)
        released = self.cli.run("release", "digits")
        self.console.print(f"  the labels reach the declared thresholds; {released['name']} released")

    def _measure_labels(self, labeling: str, dataset: str, report: Json, requested: Json) -> None:
        """Compare the labels with the truth, which only the demo knows."""
        labels = self.cli.query(dataset, f"SELECT sample_id, label FROM labels.{labeling}")  # noqa: S608  a declared name
        right = sum(self.annotators.truth[row["sample_id"]] == row["label"] for row in labels)
        accuracy = right / len(labels)
        count = len(requested["items"])
        self.result.quality[labeling] = {**report["quality"], "accuracy": accuracy, "requested": count}
        self.console.print(
            f"  {labeling}: {len(labels)} labels, {accuracy:.1%} right against the hidden truth; "
            f"{count} items in doubt were sent to a third annotator"
        )

    def _record_arrival(self, line: str) -> None:
        self.result.arrivals.append(line)
        self.console.print(f"  {line}")

    def _task_results(self, run: DagRun) -> Mapping[str, Any]:
        """Task → its result, for those that return one."""
        return {task.name: self.airflow.task_result(run, task.id) for task in self.airflow.tasks(run)}
