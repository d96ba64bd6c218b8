"""The dataset `digits`: real pictures in a bucket, a question that shows them, and proof of what adding it took."""

import base64
import io
import re
from pathlib import Path

import pytest
from digits_campaign import DigitsCampaign, submit_answer
from label_server import LabelServer
from PIL import Image
from servers import S3
from workspaces import REPOSITORY, git

from headrace.errors import HeadraceError
from headrace.label.labeling_functions import is_without_suggestion
from headrace.label.quality import QualityError, check_thresholds
from headrace.label.report import create_label_report
from headrace.label.request_more import request_more_annotations
from headrace.validate.unreadable import UnreadableError
from headrace.validate.validate_partition import validate_frame
from infra.demo import digits
from pipelines.digits.sources import images

DATASET = "digits"


def test_to_add_it_took_one_folder_and_nothing_else() -> None:
    tracked = git(
        REPOSITORY, "ls-files", "-co", "--exclude-standard", "headrace", "pipelines", "dags", "feature_repo"
    ).split()
    named = [
        path
        for path in tracked
        if path.endswith((".py", ".yaml"))
        and not path.startswith(f"pipelines/{DATASET}/")
        and (REPOSITORY / path).exists()
        and re.search(rf"[\"'./]{DATASET}\b", (REPOSITORY / path).read_text("utf-8"))
    ]

    assert named == []


# The pictures


def test_a_picture_is_read_as_what_it_shows_and_what_it_says_of_itself(tmp_path: Path) -> None:
    picture = digits.digit_images()[0]
    (tmp_path / "x.png").write_bytes(picture.png)

    row = images.read(tmp_path / "x.png").row(0, named=True)

    assert (row["image_id"], row["mode"], row["width_px"]) == ("digit-0000", "L", "64")
    assert row["taken_at"] == "1998-07-01T00:00:00+00:00"
    shown = base64.b64decode(row["picture"].removeprefix("data:image/png;base64,"))
    assert shown == picture.png
    assert len(row["cells"]) == 128


def test_the_same_pictures_are_the_same_bytes_and_none_tells_its_digit() -> None:
    picture = digits.digit_images()[3]
    with Image.open(io.BytesIO(picture.png)) as opened:
        said = opened.text  # type: ignore[attr-defined]

    assert set(said) == {"Title", "Creation Time"}
    digits.digit_images.cache_clear()
    assert digits.digit_images()[3].png == picture.png


def empty_picture(width: int, height: int, mode: str = "1") -> bytes:
    """A picture of one color: a few bytes, however large."""
    into = io.BytesIO()
    Image.new(mode, (width, height)).save(into, "PNG")
    return into.getvalue()


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "0 bytes cannot be decoded"),
        (b"GIF89a" + bytes(40), "46 bytes cannot be decoded"),
        (digits.digit_images()[0].png[:200], "200 bytes cannot be decoded"),
        (bytes(20_000), "at most 16,384 bytes, seen 20,000"),
        (empty_picture(8000, 8000), "expected at most 1,048,576 pixels, found 8,000 x 8,000"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "71 bytes cannot be decoded"),
    ],
)
def test_bytes_that_are_no_whole_picture_are_refused_with_the_reason(tmp_path: Path, content: bytes, seen: str) -> None:
    (tmp_path / "x.png").write_bytes(content)

    with pytest.raises(UnreadableError, match=seen):
        images.read(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("picture", "check"),
    [
        (empty_picture(1, 50_000, "L"), "height_px|is_in"),
        (empty_picture(64, 64, "RGBA"), "mode|check__one_of"),
        (empty_picture(64, 64, "L"), "ink|min"),
    ],
)
def test_a_picture_of_another_form_is_rejected_with_the_reason(tmp_path: Path, picture: bytes, check: str) -> None:
    (tmp_path / "x.png").write_bytes(picture)

    result = validate_frame(images.read(tmp_path / "x.png"), images.SOURCE, "digit-0001")

    assert result.accepted.is_empty()
    assert check in result.counts


# The loop


@pytest.fixture
def campaign(
    label_studio: LabelServer,
    s3: S3,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> DigitsCampaign:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    return DigitsCampaign.create(label_studio, s3, tmp_path, request.node.name, count=60)


@pytest.mark.slow
def test_tasks_show_the_picture_never_tell_the_answer_and_some_go_without_a_suggestion(
    campaign: DigitsCampaign,
) -> None:
    sent = campaign.send()

    tasks = campaign.tasks()
    known = set(campaign.table_store.scan("validated/digits/gold").collect()["image_id"])
    assert (sent.sent, len(tasks), len(tasks.keys() & known)) == (20, 20, 4)
    for item, task in tasks.items():
        assert set(task["data"]) == {"picture", "object", "sample_id", "selection_reason", "item", "item_signature"}
        assert task["data"]["picture"].startswith("data:image/png;base64,")
        assert "gold" not in str(task["data"]).replace(task["data"]["picture"], "")
        assert not (is_without_suggestion(item, campaign.labeling) and task["predictions"])
    suggested = [task["predictions"][0] for task in tasks.values() if task["predictions"]]
    project = campaign.server.http.get(f"/api/projects/{campaign.project}").json()
    assert len(suggested) == sent.suggestions > 0
    assert {made["model_version"] for made in suggested} == {project["model_version"]} == {sent.model_version}
    assert "a model needs 50" in sent.model_reason


@pytest.mark.slow_lane
@pytest.mark.slow
def test_two_who_differ_are_followed_by_a_third_and_the_report_says_who_is_right(campaign: DigitsCampaign) -> None:
    truth = digits.true_digits()
    campaign.send()
    ann, bob, eve = (campaign.server.person(name) for name in ("ann", "bob", "eve"))
    tasks = campaign.tasks()
    wrong = sorted(tasks)[::5]
    for item, task in tasks.items():
        submit_answer(ann, task, truth[item])
        submit_answer(bob, task, str((int(truth[item]) + 1) % 10) if item in wrong else truth[item])
    campaign.collect()

    first = create_label_report(campaign.dataset, campaign.labeling, campaign.table_store, {"sample": 20, "seed": 7})
    again = request_more_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings)
    repeated = request_more_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings)
    handed = {}
    while (reply := eve.http.get(f"/api/projects/{campaign.project}/next")).status_code == 200:
        task = reply.json()
        handed[task["data"]["sample_id"]] = task
        submit_answer(eve, task, truth[task["data"]["sample_id"]])
    collected = campaign.collect()
    last = create_label_report(campaign.dataset, campaign.labeling, campaign.table_store, {"sample": 20, "seed": 7})

    assert (first.quality.items, first.quality.answers) == (20, 40)
    assert 0 < (first.no_suggestion_share or 0) < 0.6
    assert any("of the suggestions were not shown; people agree" in line for line in first.summary_lines())
    assert sorted(again) == sorted(repeated) == sorted(handed)
    assert set(wrong) <= set(again)
    assert len(again) < 12
    assert (collected.events, collected.labels, collected.rejected) == ({"created": len(again)}, 20, 0)
    assert (last.quality.gold_accuracy, last.quality.gold_items, last.quality.undecided) == (1.0, 4, 0)
    assert set(last.quality.aggregators) == {"majority", "dawid_skene", "crowdlab"}
    assert first.quality.krippendorff_alpha is not None
    assert last.quality.krippendorff_alpha is not None
    assert sorted(person.answers for person in last.quality.annotators) == [len(again), 20, 20]
    assert not set(
        request_more_annotations(campaign.dataset, campaign.labeling, campaign.table_store, campaign.settings)
    ) & set(again)


@pytest.mark.slow
def test_labels_below_the_declared_thresholds_are_refused_with_what_was_seen(campaign: DigitsCampaign) -> None:
    campaign.send()
    ann, bob = (campaign.server.person(name) for name in ("ann", "bob"))
    for number, task in enumerate(campaign.tasks().values()):
        submit_answer(ann, task, "1")
        submit_answer(bob, task, str(number % 10))
    campaign.collect()
    found = create_label_report(campaign.dataset, campaign.labeling, campaign.table_store, {"sample": 20, "seed": 7})

    with pytest.raises(
        QualityError, match=r"agreement: expected at least 0.5, found -?0\.\d+.*headrace label request-more"
    ):
        check_thresholds(found.quality, campaign.labeling)
    with pytest.raises(HeadraceError, match="not good enough"):
        create_label_report(
            campaign.dataset, campaign.labeling, campaign.table_store, {"sample": 20, "seed": 7}, gate=True
        )
