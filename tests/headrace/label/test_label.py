"""validated → Label Studio: every sampled row stands in the project as one task, whatever breaks on the way.

Everything runs against a real Label Studio; answers are given by annotators with accounts of their own.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import polars as pl
import pytest
from label_campaign import CONFIG, LABELS, Campaign, sample, task
from label_server import Person, losing_line

from headrace.errors import NotConfiguredError
from headrace.label import commands
from headrace.label.annotations import ItemError
from headrace.label.label_studio.client import LabelConfigDriftError, opened
from headrace.label.label_studio.http import LabelStudioError
from headrace.label.label_studio.import_tasks import Sender
from headrace.project.loading import load_dataset

pytestmark = pytest.mark.slow


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
    tasks = commands.tasks_of(campaign.dataset, campaign.labeling, campaign.lake, {"sample": 300})
    with (
        losing_line(campaign.server.url, imports_to_lose=1, then_gone=True) as url,
        opened(url, campaign.server.token, patience_s=0.5) as server,
    ):
        project = server.project(campaign.labeling.title, CONFIG)
        with pytest.raises(LabelStudioError, match="run the same command again"):
            Sender(server).send(project, tasks)
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
    for person, number in zip((ann, bob), campaign.server.tasks(campaign.project)["ride-0"], strict=True):
        person.answers(number, "weather")

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


def test_of_a_batch_with_tasks_that_the_server_does_not_take_the_rest_is_sent_and_those_are_kept_with_the_reason(
    campaign: Campaign,
) -> None:
    campaign.hold({"2013-01-01": 40})
    bad = {7, 23}
    campaign.labeling = replace(
        campaign.labeling, task=lambda row: {"words": "no text"} if row["car"] in bad else task(row)
    )

    first, second = campaign.send(sample=40), campaign.send(sample=40)

    assert (first.sent, second.already, second.sent, len(campaign.tasks())) == (38, 38, 0, 38)
    assert set(first.refused) == set(second.refused) == {"ride-7", "ride-23"}
    kept = json.loads((campaign.lake.root / first.aside).read_text())
    assert kept["ride-7"]["data"]["words"] == "no text"
    assert "Error at item 0" in kept["ride-7"]["reason"]
    campaign.labeling = replace(campaign.labeling, task=task)
    mended = campaign.send(sample=40)
    assert (mended.sent, mended.refused, mended.aside) == (2, {}, "")


def test_of_two_senders_one_waits_and_each_row_has_one_task(campaign: Campaign) -> None:
    campaign.hold({"2013-01-01": 300})

    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(campaign.send, sample=300) for _ in range(2)]]

    assert sorted(sent.sent for sent in done) == [0, 300]
    assert len(campaign.tasks()) == 300


def test_a_personal_column_reaches_the_tool_only_where_the_declaration_says_that_people_need_it(
    campaign: Campaign,
) -> None:
    source = load_dataset("flights").sources[0]

    campaign.dataset = replace(campaign.dataset, sources=(replace(source, pii_columns=("car",)),))
    with pytest.raises(ItemError, match="its car tells of a person"):
        campaign.send()
    campaign.dataset = replace(campaign.dataset, sources=(replace(source, pii_columns=("late_min",)),))
    with pytest.raises(ItemError, match="its task shows late_min, which tells of a person"):
        campaign.send()
    campaign.labeling = replace(campaign.labeling, allowed_pii=("late_min",))
    campaign.send()

    assert len(campaign.tasks()) > 0


# Wait


def test_progress_counts_answered_and_skipped_tasks(campaign: Campaign, ann: Person) -> None:
    campaign.send()
    tasks = campaign.tasks()
    ann.answers(tasks["ride-0"], "weather")
    ann.skips(tasks["ride-1"], "weather")

    assert campaign.progress() == (2, 6)


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
