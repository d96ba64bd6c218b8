"""validated → annotations → labels: each question is sent once, each answer collected once, whatever breaks between.

Everything runs against a real Label Studio; answers are given by annotators with accounts of their own.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines import label, parquet
from pipelines.annotations import ItemError
from pipelines.dataset import Dataset, Labeling, Reads
from pipelines.errors import NotConfiguredError
from pipelines.history import LabelsWouldVanishError
from pipelines.label import Collected, Sent
from pipelines.settings import Settings
from pipelines.systems.label_studio import LabelConfigDriftError, opened
from pipelines.systems.label_studio_wire import LabelStudioError
from pipelines.table import Entry, Lake, Manifest
from tests.label_server import LabelServer, Person, losing_line

pytestmark = pytest.mark.slow

CONFIG = """
<View>
  <Text name="text" value="$text"/>
  <Choices name="cause" toName="text" choice="single-radio" required="true">
    <Choice value="carrier"/>
    <Choice value="weather"/>
    <Choice value="security"/>
  </Choices>
</View>
"""
DAYS = {"2013-01-01": 3, "2013-01-02": 3}
PARAMS: Mapping[str, Any] = {"sample": 6}
LABELS, ANNOTATIONS, REJECTED = "labels/rides/cause", "annotations/rides/cause", "rejected/rides/cause"


def sample(params: Mapping[str, Any], rides: pl.LazyFrame) -> pl.DataFrame:
    return (
        rides.sort("started_at", "car")
        .head(params["sample"])
        .with_columns(
            pl.format("ride-{}", "car").alias("sample_id"),
            pl.col("started_at").alias("event_time"),
            pl.lit("delayed").alias("why"),
        )
        .collect()
    )


def task(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": f"car {row['car']} was {row['late_min']} minutes late"}


class Campaign:
    """A labeling of the dataset `rides` in a workspace, on a project of its own."""

    def __init__(self, server: LabelServer, root: Path, title: str) -> None:
        self.server = server
        self.lake = Lake.at(root)
        self.settings = server.settings()
        self.labeling = Labeling(
            name="cause", title=title[-50:], config=CONFIG, control="cause", choices=("carrier", "weather", "security"),
            reads={"rides": Reads("validated/rides")}, sample=sample, keys=("started_at", "car"),
            task=task,
        )  # fmt: skip
        self.dataset = Dataset("rides", "Rides.", "someone", (), labels=(self.labeling,))

    def hold(self, days: Mapping[str, int]) -> None:
        """Have validated rides of so many cars on these days."""
        entries, car = {}, 0
        for day, cars in days.items():
            start = datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
            numbers = list(range(car, car + cars))
            frame = pl.DataFrame(
                {"started_at": [start] * cars, "car": numbers, "late_min": [90] * cars},
                schema={"started_at": pl.Datetime("us", "UTC"), "car": pl.Int32, "late_min": pl.Int64},
            )
            stored = self.lake.cache.add(partial(parquet.write, frame))
            entries[day] = Entry(stored.md5, stored.md5, stored.size, cars)
            car += cars
        self.lake.commit(Manifest("validated/rides/rides", partitions=entries))

    def send(self, settings: Settings | None = None, **params: int) -> Sent:
        """Send a sample of six, or of so many as `params` says."""
        return label.send(self.dataset, self.labeling, self.lake, settings or self.settings, {**PARAMS, **params})

    def collect(self, *, allow_empty: bool = False) -> Collected:
        """Collect into the workspace."""
        return label.collect(self.dataset, self.labeling, self.lake, self.settings, allow_empty=allow_empty)

    def progress(self) -> tuple[int, int]:
        """Done, of all."""
        return label.progress(self.labeling, self.settings)

    @property
    def project(self) -> int:
        """The project's number."""
        found = self.server.http.get("/api/projects", params={"title": self.labeling.title}).json()["results"]
        return next(int(item["id"]) for item in found if item["title"] == self.labeling.title)

    def tasks(self) -> dict[str, int]:
        """Sample id → task, each there exactly once."""
        found = self.server.tasks(self.project)
        assert all(len(copies) == 1 for copies in found.values())
        return {name: copies[0] for name, copies in found.items()}

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What the table holds."""
        return self.lake.scan(table).collect().to_dicts()

    def labels(self) -> dict[str, str]:
        """Sample id → label."""
        return {row["sample_id"]: row["label"] for row in self.rows(LABELS)}

    def md5s(self, table: str) -> dict[str, str]:
        """Partition → md5."""
        return {day: entry.md5 for day, entry in self.lake.manifest(table).partitions.items()}


@pytest.fixture
def campaign(label_studio: LabelServer, tmp_path: Path, request: pytest.FixtureRequest) -> Campaign:
    """An own project, rides in the workspace, nothing sent."""
    made = Campaign(label_studio, tmp_path, request.node.name)
    made.hold(DAYS)
    return made


@pytest.fixture
def ann(label_studio: LabelServer) -> Person:
    return label_studio.person("ann")


@pytest.fixture
def bob(label_studio: LabelServer) -> Person:
    return label_studio.person("bob")


# Send


def test_sending_twice_gives_each_row_one_task_that_says_why_it_was_chosen(campaign: Campaign) -> None:
    first, second = campaign.send(), campaign.send()

    assert (first.sampled, first.already, first.sent) == (6, 0, 6)
    assert (second.sampled, second.already, second.sent) == (6, 6, 0)
    tasks = campaign.tasks()
    assert sorted(tasks) == [f"ride-{car}" for car in range(6)]
    data = campaign.server.http.get(f"/api/tasks/{tasks['ride-4']}/").json()["data"]
    assert (data["text"], data["why"]) == ("car 4 was 90 minutes late", "delayed")


def test_a_larger_sample_sends_only_the_rows_that_are_new(campaign: Campaign) -> None:
    campaign.send(sample=2)

    sent = campaign.send(sample=6)

    assert (sent.already, sent.sent, len(campaign.tasks())) == (2, 4, 6)


def test_imports_whose_answers_are_lost_are_looked_up_and_never_repeated(campaign: Campaign) -> None:
    campaign.hold({"2013-01-01": 600})
    with losing_line(campaign.server.url, imports_to_lose=2) as url:
        sent = campaign.send(campaign.server.settings(LABEL_STUDIO_URL=url), sample=600)

    assert (sent.sampled, sent.sent, sent.copies_removed) == (600, 600, 0)
    assert len(campaign.tasks()) == 600


def test_a_send_that_died_half_way_is_finished_by_the_next_one(campaign: Campaign) -> None:
    campaign.hold({"2013-01-01": 300})
    tasks = label.tasks_of(campaign.dataset, campaign.labeling, campaign.lake, {"sample": 300})
    with (
        losing_line(campaign.server.url, imports_to_lose=1, then_gone=True) as url,
        opened(url, campaign.server.token, patience_s=0.5) as server,
    ):
        project = server.project(campaign.labeling.title, CONFIG)
        with pytest.raises(LabelStudioError, match="run the same command again"):
            server.send(project, tasks)
    stored = len(campaign.tasks())

    sent = campaign.send(sample=300)

    assert 0 < stored < 300
    assert (sent.already, sent.sent, len(campaign.tasks())) == (stored, 300 - stored, 300)


def test_a_copy_that_arrived_late_goes_and_the_one_that_someone_answered_stays(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    original = campaign.tasks()["ride-0"]
    data = campaign.server.http.get(f"/api/tasks/{original}/").json()["data"]
    late = campaign.server.http.post(
        f"/api/projects/{campaign.project}/import", params={"return_task_ids": "true"}, json=[{"data": data}]
    ).json()["task_ids"][0]
    ann.answers(late, "weather")

    sent = campaign.send()

    assert (sent.copies_removed, campaign.tasks()["ride-0"]) == (1, late)


def test_copies_that_two_people_answered_both_stay_and_both_answers_count(
    campaign: Campaign, ann: Person, bob: Person
) -> None:
    campaign.send()
    original = campaign.tasks()["ride-0"]
    data = campaign.server.http.get(f"/api/tasks/{original}/").json()["data"]
    campaign.server.http.post(f"/api/projects/{campaign.project}/import", json=[{"data": data}])
    for person, task in zip((ann, bob), campaign.server.tasks(campaign.project)["ride-0"], strict=True):
        person.answers(task, "weather")

    campaign.send()
    campaign.collect()

    assert len(campaign.server.tasks(campaign.project)["ride-0"]) == 2
    assert [(row["label"], row["votes"]) for row in campaign.rows(LABELS)] == [("weather", 2)]


def test_a_sample_with_an_id_twice_is_refused_before_anything_is_sent(campaign: Campaign) -> None:
    campaign.labeling = replace(
        campaign.labeling, sample=lambda **given: sample(**given).with_columns(pl.lit("same").alias("sample_id"))
    )

    with pytest.raises(ItemError, match="seen 1 values of type String in 6 rows"):
        campaign.send()


# Wait


def test_progress_counts_answered_and_skipped_tasks(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.answers(tasks["ride-0"], "weather")
    ann.skips(tasks["ride-1"], "weather")

    assert campaign.progress() == (2, 6)


# Collect


def test_an_answer_becomes_a_label_that_joins_back_to_its_row(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    ann.answers(campaign.tasks()["ride-4"], "weather")

    collected = campaign.collect()

    [row], [event] = campaign.rows(LABELS), campaign.rows(ANNOTATIONS)
    assert (collected.events, collected.days, collected.labels) == ({"created": 1}, ("2013-01-02",), 1)
    assert row == {
        "started_at": datetime(2013, 1, 2, 12, tzinfo=UTC), "car": 4, "sample_id": "ride-4",
        "event_time": datetime(2013, 1, 2, 12, tzinfo=UTC), "known_time": event["updated_at"], "label": "weather",
        "votes": 1, "agreement": 1.0, "annotation_ids": [event["annotation_id"]],
    }  # fmt: skip
    assert (event["event"], event["choice"], event["lead_time_s"]) == ("created", "weather", 2.5)
    joined = campaign.lake.scan("validated/rides/rides").join(campaign.lake.scan(LABELS), on=["started_at", "car"])
    assert joined.collect()["label"].to_list() == ["weather"]


def test_annotators_enter_the_history_under_a_pseudonym_that_needs_the_secret(
    campaign: Campaign, ann: Person, bob: Person
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for person, ride in ((ann, "ride-0"), (ann, "ride-1"), (bob, "ride-2")):
        person.answers(tasks[ride], "weather")
    campaign.collect()

    [first, second, other] = [row["annotator"] for row in campaign.rows(ANNOTATIONS)]
    assert first == second != other
    assert "example.com" not in str(campaign.rows(ANNOTATIONS))
    campaign.settings = campaign.settings.model_copy(update={"pseudonym_key": None})
    with pytest.raises(NotConfiguredError, match="HEADRACE_PSEUDONYM_KEY"):
        campaign.collect()


def test_collecting_twice_changes_no_byte(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    for task in campaign.tasks().values():
        ann.answers(task, "carrier")
    campaign.collect()
    before = {path: path.read_bytes() for path in sorted((campaign.lake.root / "data").rglob("*.*"))}

    again = campaign.collect()

    assert (again.events, again.days, again.rebuilt) == ({}, (), ())
    assert {path: path.read_bytes() for path in sorted((campaign.lake.root / "data").rglob("*.*"))} == before


def test_a_relabel_changes_exactly_the_day_of_its_item_and_keeps_what_was_said_before(
    campaign: Campaign, ann: Person
) -> None:
    campaign.send()
    given = {ride: ann.answers(task, "carrier") for ride, task in campaign.tasks().items()}
    campaign.collect()
    labels, history = campaign.md5s(LABELS), campaign.md5s(ANNOTATIONS)

    ann.changes(given["ride-5"], "weather")
    collected = campaign.collect()

    assert (collected.events, collected.days, collected.rebuilt) == ({"changed": 1}, ("2013-01-02",), ("2013-01-02",))
    assert campaign.md5s(LABELS)["2013-01-01"] == labels["2013-01-01"]
    assert campaign.md5s(ANNOTATIONS)["2013-01-01"] == history["2013-01-01"]
    assert campaign.labels()["ride-5"] == "weather"
    said = [(row["event"], row["choice"]) for row in campaign.rows(ANNOTATIONS) if row["sample_id"] == "ride-5"]
    assert said == [("created", "carrier"), ("changed", "weather")]


def test_a_skip_is_never_a_label_though_it_carries_an_answer(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    ann.skips(campaign.tasks()["ride-0"], "weather")

    collected = campaign.collect()

    assert (collected.events, collected.labels, collected.rejected) == ({"skipped": 1}, 0, 0)
    [facts] = [entry.facts for entry in campaign.lake.manifest(LABELS).partitions.values()]
    assert (facts["rows_in"], facts["skipped"]) == (1, 1)


def test_a_deleted_annotation_becomes_an_event_and_its_label_goes(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.answers(tasks["ride-1"], "carrier")
    given = ann.answers(tasks["ride-0"], "weather")
    campaign.collect()

    ann.deletes(given)
    collected = campaign.collect()

    assert collected.events == {"deleted": 1}
    assert campaign.labels() == {"ride-1": "carrier"}
    assert [row["choice"] for row in campaign.rows(ANNOTATIONS)] == ["weather", "weather", "carrier"]


def test_a_deleted_task_becomes_an_event_though_the_server_keeps_no_trace_of_it(
    campaign: Campaign, ann: Person
) -> None:
    campaign.send()
    tasks = campaign.tasks()
    for ride in ("ride-0", "ride-4"):
        ann.answers(tasks[ride], "weather")
    campaign.collect()

    campaign.server.http.delete(f"/api/tasks/{tasks['ride-0']}/").raise_for_status()
    collected = campaign.collect()

    assert (collected.events, collected.days) == ({"deleted": 1}, ("2013-01-01",))
    assert campaign.labels() == {"ride-4": "weather"}


def test_a_project_that_lost_all_its_answers_takes_no_label_away(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    for task in campaign.tasks().values():
        ann.answers(task, "carrier")
    campaign.collect()

    campaign.server.http.delete(f"/api/projects/{campaign.project}/").raise_for_status()
    with pytest.raises(LabelsWouldVanishError, match="6 answers were collected"):
        campaign.collect()
    campaign.send()
    with pytest.raises(LabelsWouldVanishError, match=r"holds no answer, but 6 were collected.*Restore"):
        campaign.collect()
    assert len(campaign.labels()) == 6

    assert campaign.collect(allow_empty=True).events == {"deleted": 6}
    assert campaign.labels() == {}


def test_an_answer_that_the_question_does_not_offer_is_set_aside_with_the_reason(
    campaign: Campaign, ann: Person, bob: Person
) -> None:
    campaign.send()
    ann.answers(campaign.tasks()["ride-0"], "gremlins")
    bob.answers(campaign.tasks()["ride-0"], "weather")

    collected = campaign.collect()

    [aside] = campaign.rows(REJECTED)
    assert (collected.labels, collected.rejected) == (1, 1)
    assert campaign.labels() == {"ride-0": "weather"}
    assert aside["reason"] == "gremlins is none of the choices (carrier, weather, security)"


def test_an_answer_given_while_others_are_collected_is_not_lost(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.answers(tasks["ride-0"], "weather")
    campaign.collect()
    cursor = campaign.lake.manifest(ANNOTATIONS).partitions["2013-01-01"].facts["newest"]

    ann.answers(tasks["ride-3"], "weather")
    campaign.collect()

    assert campaign.rows(ANNOTATIONS)[0]["updated_at"] == datetime.fromisoformat(cursor)
    assert sorted(campaign.labels()) == ["ride-0", "ride-3"]


def test_a_history_rebuilt_from_nothing_gives_the_same_labels(campaign: Campaign, ann: Person, bob: Person) -> None:
    campaign.send()
    for ride, task in campaign.tasks().items():
        given = ann.answers(task, "carrier")
        campaign.collect()
        if ride in {"ride-1", "ride-4"}:
            ann.changes(given, "security")
        bob.answers(task, "security")
    campaign.collect()
    grown = campaign.md5s(LABELS)

    other = Campaign(campaign.server, campaign.lake.root / "elsewhere", campaign.labeling.title)
    other.hold(DAYS)
    other.collect()

    assert other.md5s(LABELS) == grown
    assert other.labels() == {"ride-1": "security", "ride-4": "security"}


def test_tasks_that_somebody_else_put_into_the_project_are_counted_not_read(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    foreign = campaign.server.http.post(
        f"/api/projects/{campaign.project}/import",
        params={"return_task_ids": "true"},
        json=[{"data": {"text": "by hand"}}],
    ).json()["task_ids"][0]
    ann.answers(foreign, "weather")

    collected = campaign.collect()

    assert (collected.foreign, collected.labels) == (1, 0)


# What goes wrong


def test_a_wrong_token_is_refused_with_the_setting_and_without_the_token(campaign: Campaign) -> None:
    with pytest.raises(LabelStudioError) as refused:
        campaign.send(campaign.server.settings(LABEL_STUDIO_API_KEY="0123456789"))

    message = str(refused.value)
    assert "refuses the token in LABEL_STUDIO_API_KEY (HTTP 401" in message
    assert "headrace stack env" in message
    assert "0123456789" not in message


def test_a_personal_access_token_works_too(campaign: Campaign) -> None:
    token = campaign.server.http.post("/api/token/", json={}).raise_for_status().json()["token"]

    sent = campaign.send(campaign.server.settings(LABEL_STUDIO_API_KEY=token))

    assert sent.sent == 6


def test_a_server_that_is_down_is_named_with_the_next_command() -> None:
    with (
        opened("http://127.0.0.1:9", "token", patience_s=0.3) as server,
        pytest.raises(LabelStudioError, match=r"http://127.0.0.1:9 does not answer .*headrace stack up"),
    ):
        server.project("anything", CONFIG)


def test_a_missing_address_is_named_before_anything_is_tried(campaign: Campaign) -> None:
    nowhere = campaign.settings.model_copy(update={"label_studio_url": None})

    with pytest.raises(NotConfiguredError, match="LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        campaign.send(nowhere)


def test_a_question_edited_on_the_server_stops_both_ways_with_the_difference(campaign: Campaign) -> None:
    campaign.send()
    edited = CONFIG.replace('<Choice value="security"/>', '<Choice value="sabotage"/>')
    campaign.server.http.patch(f"/api/projects/{campaign.project}/", json={"label_config": edited}).raise_for_status()

    with pytest.raises(LabelConfigDriftError) as on_send:
        campaign.send()
    with pytest.raises(LabelConfigDriftError):
        campaign.collect()

    assert '-<Choice value="security"/>\n+<Choice value="sabotage"/>' in str(on_send.value)


def test_a_question_with_other_indentation_is_the_same_question(campaign: Campaign) -> None:
    campaign.send()
    campaign.labeling = replace(campaign.labeling, config=CONFIG.replace("  ", "      "))

    assert campaign.send().already == 6


def test_two_projects_of_one_title_are_not_guessed_between(campaign: Campaign) -> None:
    campaign.send()
    twin = {"title": campaign.labeling.title, "label_config": CONFIG}
    campaign.server.http.post("/api/projects", json=twin).raise_for_status()

    with pytest.raises(LabelStudioError, match=r"expected one project .* seen 2"):
        campaign.send()


def test_collecting_before_sending_says_what_to_do_first(campaign: Campaign) -> None:
    with pytest.raises(ItemError, match="send the tasks first"):
        campaign.collect()


def test_a_task_that_lacks_a_field_of_the_question_is_refused_by_name_and_nothing_is_stored(campaign: Campaign) -> None:
    campaign.labeling = replace(campaign.labeling, task=lambda _row: {"words": "no text"})

    with pytest.raises(LabelStudioError, match=r"HTTP 400: .*text"):
        campaign.send()

    assert campaign.tasks() == {}
