"""validated → Label Studio: every sampled row becomes one task of the project, whatever breaks on the way.

Everything runs against a real Label Studio; answers are given by annotators with accounts of their own.
"""

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import polars as pl
import pytest
from dataframely import Schema
from label_campaign import CONFIG, LABELS, PARAMS, Campaign, sample_rides, task_data
from label_server import Annotator, lossy_proxy
from minimal_dataset import keep_rows

from headrace.dataset import ObjectSource, Source
from headrace.errors import NotConfiguredError
from headrace.ingest.ingest import ingest
from headrace.label import tasks as sample_tasks
from headrace.label.connection import ensure_project
from headrace.label.errors import InvalidItemError, LabelsWouldVanishError, NothingSentError
from headrace.label.label_studio.client import open_label_studio
from headrace.label.label_studio.errors import LabelConfigDriftError, LabelStudioError
from headrace.label.label_studio.import_tasks import TaskImporter
from headrace.label.shown_media import show_media
from headrace.project.loading import load_dataset
from headrace.settings import Settings
from headrace.validate.media import read_media

pytestmark = pytest.mark.slow


def test_sending_twice_gives_each_row_one_task_with_its_selection_reason(campaign: Campaign) -> None:
    first, second = campaign.send(), campaign.send()

    assert (first.sampled, first.existing, first.sent) == (6, 0, 6)
    assert (second.sampled, second.existing, second.sent) == (6, 6, 0)
    tasks = campaign.tasks()
    assert sorted(tasks) == [f"ride-{car}" for car in range(6)]
    data = campaign.server.task_data(tasks["ride-4"])
    assert (data["text"], data["selection_reason"]) == ("car 4 was 90 minutes late", "delayed")


def test_a_task_shows_a_picture_from_the_raw_table(campaign: Campaign) -> None:
    root, png = campaign.table_store.root, b"\x89PNG\r\n\x1a\n" + bytes(20)
    (root / "bucket/pictures").mkdir(parents=True)
    (root / "bucket/pictures/a.png").write_bytes(png)
    location = ObjectSource("pictures/", ".*", ".png", "file:bucket", media=True)
    source = Source("pictures", location, read_media, Schema, keep_rows, ("key",))
    campaign.dataset = replace(campaign.dataset, sources=(source,))
    list(ingest(campaign.dataset, campaign.table_store, Settings(workspace=root)))
    row = read_media(root / "bucket/pictures/a.png").row(0, named=True)
    config = CONFIG.replace("<Choices", '<Image name="picture" value="$picture"/><Choices')
    shown = {"text": "a car", "picture": show_media(row)}
    campaign.labeling = campaign.with_declaration(config=config, task=lambda _row: dict(shown))

    sent = campaign.send()

    assert (sent.sent, sent.rejected) == (6, {})
    data = campaign.server.task_data(campaign.tasks()["ride-4"])
    assert data["picture"] == f"data:image/png;base64,{b64encode(png).decode()}"


def test_a_larger_sample_sends_only_the_rows_that_are_new(campaign: Campaign) -> None:
    campaign.send(sample=2)

    sent = campaign.send(sample=6)

    assert (sent.existing, sent.sent, len(campaign.tasks())) == (2, 4, 6)


def test_tasks_that_0_1_sent_are_recognised(campaign: Campaign, ann: Annotator) -> None:
    rows = sample_tasks.draw_sample(campaign.dataset, campaign.labeling, campaign.table_store, PARAMS)
    data = sample_tasks.task_data(campaign.dataset, campaign.labeling, rows).values()
    title = {"title": campaign.labeling.title, "label_config": CONFIG}
    project = campaign.server.http.post("/api/projects", json=title).raise_for_status().json()["id"]
    old = [{"data": {**one, "why": one["selection_reason"]}} for one in data]
    for one in old:
        del one["data"]["selection_reason"]
    campaign.server.http.post(f"/api/projects/{project}/import", json=old).raise_for_status()

    sent = campaign.send()
    ann.submit(campaign.tasks()["ride-4"], "weather")
    campaign.collect()

    assert (sent.existing, sent.sent, campaign.labels()) == (6, 0, {"ride-4": "weather"})


@pytest.mark.parametrize("status", [None, 502])
def test_imports_whose_answers_are_lost_are_looked_up_and_never_repeated(
    campaign: Campaign, status: int | None
) -> None:
    campaign.write_rides({"2013-01-01": 600})
    with lossy_proxy(campaign.server.url, imports_to_lose=2, status=status) as url:
        sent = campaign.send(campaign.server.settings(LABEL_STUDIO_URL=url), sample=600)

    assert (sent.sampled, sent.sent, sent.duplicates_removed) == (600, 600, 0)
    assert len(campaign.tasks()) == 600


def test_a_send_that_died_half_way_is_finished_by_the_next_one(campaign: Campaign) -> None:
    campaign.write_rides({"2013-01-01": 300})
    rows = sample_tasks.draw_sample(campaign.dataset, campaign.labeling, campaign.table_store, {"sample": 300})
    tasks = sample_tasks.task_data(campaign.dataset, campaign.labeling, rows)
    with (
        lossy_proxy(campaign.server.url, imports_to_lose=1, then_gone=True) as url,
        open_label_studio(url, campaign.server.token, retry_timeout_s=0.5) as client,
    ):
        project = ensure_project(client, campaign.labeling, collected=0)
        with pytest.raises(LabelStudioError, match="run the same command again"):
            TaskImporter(client).import_tasks(project, tasks)
    stored = len(campaign.tasks())

    sent = campaign.send(sample=300)

    assert 0 < stored < 300
    assert (sent.existing, sent.sent, len(campaign.tasks())) == (stored, 300 - stored, 300)


def test_a_duplicate_that_arrived_late_is_deleted_and_the_task_that_someone_answered_stays(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.send()
    original = campaign.tasks()["ride-0"]
    late = campaign.server.import_task(campaign.project, campaign.server.task_data(original))
    ann.submit(late, "weather")

    sent = campaign.send()

    assert (sent.duplicates_removed, campaign.tasks()["ride-0"]) == (1, late)


def test_duplicates_that_two_people_answered_both_stay_and_both_answers_count(
    campaign: Campaign, ann: Annotator, bob: Annotator
) -> None:
    campaign.send()
    original = campaign.tasks()["ride-0"]
    campaign.server.import_task(campaign.project, campaign.server.task_data(original))
    for person, number in zip((ann, bob), campaign.server.tasks(campaign.project)["ride-0"], strict=True):
        person.submit(number, "weather")

    campaign.send()
    campaign.collect()

    assert len(campaign.server.tasks(campaign.project)["ride-0"]) == 2
    assert [(row["label"], row["votes"]) for row in campaign.rows(LABELS)] == [("weather", 2)]


def test_a_sample_with_a_duplicate_id_is_rejected_before_anything_is_sent(campaign: Campaign) -> None:
    campaign.labeling = replace(
        campaign.labeling, sample=lambda **given: sample_rides(**given).with_columns(pl.lit("same").alias("sample_id"))
    )

    with pytest.raises(InvalidItemError, match="found 1 values of type String in 6 rows"):
        campaign.send()


def test_tasks_that_the_server_rejects_are_kept_with_the_reason_and_the_rest_of_their_batch_is_sent(
    campaign: Campaign,
) -> None:
    campaign.write_rides({"2013-01-01": 40})
    bad = {7, 23}
    campaign.labeling = replace(
        campaign.labeling, task=lambda row: {"words": "no text"} if row["car"] in bad else task_data(row)
    )

    first, second = campaign.send(sample=40), campaign.send(sample=40)

    assert (first.sent, second.existing, second.sent, len(campaign.tasks())) == (38, 38, 0, 38)
    assert set(first.rejected) == set(second.rejected) == {"ride-7", "ride-23"}
    kept = json.loads((campaign.table_store.root / first.rejected_path).read_text())
    assert kept["ride-7"]["data"]["words"] == "no text"
    assert "Error at item 0" in kept["ride-7"]["reason"]
    campaign.labeling = replace(campaign.labeling, task=task_data)
    fixed = campaign.send(sample=40)
    assert (fixed.sent, fixed.rejected, fixed.rejected_path) == (2, {}, "")


def test_of_two_senders_one_waits_and_each_row_has_one_task(campaign: Campaign) -> None:
    campaign.write_rides({"2013-01-01": 300})

    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(campaign.send, sample=300) for _ in range(2)]]

    assert sorted(sent.sent for sent in done) == [0, 300]
    assert len(campaign.tasks()) == 300


def test_a_personal_column_reaches_the_tool_only_where_the_declaration_says_that_people_need_it(
    campaign: Campaign,
) -> None:
    source = load_dataset("flights").sources[0]

    campaign.dataset = replace(campaign.dataset, sources=(replace(source, pii_columns=("car",)),))
    with pytest.raises(InvalidItemError, match="car is personal data"):
        campaign.send()
    campaign.dataset = replace(campaign.dataset, sources=(replace(source, pii_columns=("late_min",)),))
    with pytest.raises(InvalidItemError, match="its task shows late_min, which is personal data"):
        campaign.send()
    campaign.labeling = replace(campaign.labeling, allowed_pii=("late_min",))
    campaign.send()

    assert len(campaign.tasks()) > 0


# Wait


def test_progress_counts_answered_and_skipped_tasks(campaign: Campaign, ann: Annotator) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.submit(tasks["ride-0"], "weather")
    ann.skip(tasks["ride-1"], "weather")

    assert campaign.progress() == (2, 6)


# What goes wrong


def test_a_wrong_token_is_rejected_with_the_setting_and_without_the_token(campaign: Campaign) -> None:
    with pytest.raises(LabelStudioError) as refused:
        campaign.send(campaign.server.settings(LABEL_STUDIO_API_KEY="0123456789"))

    message = str(refused.value)
    assert "rejects the token in LABEL_STUDIO_API_KEY (HTTP 401" in message
    assert "headrace stack env" in message
    assert "0123456789" not in message


def test_a_personal_access_token_works_too(campaign: Campaign) -> None:
    token = campaign.server.http.post("/api/token/", json={}).raise_for_status().json()["token"]

    sent = campaign.send(campaign.server.settings(LABEL_STUDIO_API_KEY=token))

    assert sent.sent == 6


def test_a_server_that_is_down_is_named_with_the_next_command() -> None:
    with (
        open_label_studio("http://127.0.0.1:9", "token", retry_timeout_s=0.3) as client,
        pytest.raises(LabelStudioError, match=r"http://127.0.0.1:9 does not answer .*headrace stack up"),
    ):
        client.find_project("anything", CONFIG, "a mark")


def test_a_missing_address_is_named_before_anything_is_tried(campaign: Campaign) -> None:
    nowhere = campaign.settings.model_copy(update={"label_studio_url": None})

    with pytest.raises(NotConfiguredError, match="LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        campaign.send(nowhere)


def test_a_label_configuration_edited_on_the_server_stops_send_and_collect_with_the_difference(
    campaign: Campaign,
) -> None:
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

    assert campaign.send().existing == 6


@pytest.mark.parametrize("version", ["0.2", "today"])
def test_a_project_is_found_by_its_mark_whatever_people_call_it(
    campaign: Campaign, ann: Annotator, version: str
) -> None:
    if version == "0.2":  # it set no mark; the first send adds it
        unmarked = {"title": campaign.labeling.title, "label_config": CONFIG, "description": "Be quick."}
        campaign.server.http.post("/api/projects", json=unmarked).raise_for_status()
    campaign.send()
    ann.submit(campaign.tasks()["ride-0"], "weather")
    campaign.collect()
    project = campaign.project
    page = campaign.server.http.get(f"/api/projects/{project}/").json()
    rename = {"title": "Causes (old)"}
    campaign.server.http.patch(f"/api/projects/{project}/", json=rename).raise_for_status()
    twin = {"title": campaign.labeling.title, "label_config": CONFIG}
    campaign.server.http.post("/api/projects", json=twin).raise_for_status()

    sent, collected = campaign.send(), campaign.collect()

    assert (sent.existing, sent.sent) == (6, 0)
    assert sent.project_url.endswith(f"/projects/{project}")
    assert (collected.events, collected.labels) == ({}, 1)
    assert page["description"].startswith("Be quick.") == (version == "0.2")


def test_two_projects_with_one_mark_are_not_guessed_between(campaign: Campaign) -> None:
    campaign.send()
    page = campaign.server.http.get(f"/api/projects/{campaign.project}/").json()
    twin = {"title": "A copy", "label_config": CONFIG, "description": page["description"]}
    campaign.server.http.post("/api/projects", json=twin).raise_for_status()
    rename = {"title": "The original"}
    campaign.server.http.patch(f"/api/projects/{page['id']}/", json=rename).raise_for_status()

    with pytest.raises(LabelStudioError, match=r"expected one project .* found 2"):
        campaign.send()


def test_a_project_that_is_gone_is_not_made_again_once_answers_were_collected(
    campaign: Campaign, ann: Annotator
) -> None:
    campaign.send()
    campaign.server.http.delete(f"/api/projects/{campaign.project}/").raise_for_status()
    assert campaign.send().sent == 6, "nothing was lost"
    ann.submit(campaign.tasks()["ride-0"], "weather")
    campaign.collect()
    campaign.server.http.delete(f"/api/projects/{campaign.project}/").raise_for_status()

    for verb in (campaign.send, campaign.collect):
        with pytest.raises(LabelsWouldVanishError, match="1 answer was collected from it"):
            verb()

    assert campaign.labels() == {"ride-0": "weather"}


def test_collecting_before_sending_says_what_to_do_first(campaign: Campaign) -> None:
    with pytest.raises(NothingSentError, match="send the tasks first"):
        campaign.collect()


def test_a_task_that_lacks_a_field_of_the_configuration_is_rejected_by_name_and_nothing_is_stored(
    campaign: Campaign,
) -> None:
    campaign.labeling = replace(campaign.labeling, task=lambda _row: {"words": "no text"})

    with pytest.raises(LabelStudioError, match=r"HTTP 400: .*text"):
        campaign.send()

    assert campaign.tasks() == {}
