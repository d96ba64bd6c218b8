"""People label in a browser: an annotator logs in, reads real pages, clicks answers, and they arrive as labels."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import real_flights
from digits_campaign import DigitsCampaign
from label_server import LabelServer
from servers import S3

from headrace.dataset import Dataset
from headrace.label.collect import collect_annotations
from headrace.label.send import send_tasks
from headrace.project.loading import load_dataset
from headrace.settings import Settings
from headrace.stack.annotator import create_annotator
from headrace.storage import parquet
from headrace.storage.manifest import Manifest
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore
from infra.demo import digits

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
PASSWORD = "a password of their own"  # noqa: S105  of an account that lives as long as the test
ITEMS = 3
SHOWN = """async wanted => {
    const pictures = [...document.querySelectorAll("img")].filter(image => image.naturalWidth === 64)
    for (const picture of pictures) {
        const content = await (await fetch(picture.src)).blob()
        const address = await new Promise(done => {
            const reader = new FileReader()
            reader.onload = () => done(reader.result)
            reader.readAsDataURL(content)
        })
        if (wanted.includes(address)) return address
    }
    return null
}"""
"""The picture that the page shows, if it is one of those wanted, as a data address."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no browser here: expected chromium or google-chrome on the PATH"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def page(label_studio: LabelServer, request: pytest.FixtureRequest) -> Iterator["Page"]:
    """A browser in which a person with an account of their own has logged in."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  only where there is a browser

    email = f"{abs(hash(request.node.name))}@example.com"
    create_annotator(label_studio.url, label_studio.token, email, PASSWORD)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            opened = browser.new_page(viewport={"width": 1400, "height": 800})
            opened.set_default_timeout(60_000)
            opened.goto(f"{label_studio.url}/user/login/")
            opened.fill("input[name=email]", email)
            opened.fill("input[name=password]", PASSWORD)
            with opened.expect_navigation():
                opened.keyboard.press("Enter")
            yield opened
        finally:
            browser.close()


@dataclass(frozen=True)
class LabelingPage:
    """The page on which a person answers one question after the other."""

    page: "Page"

    @classmethod
    def open(cls, page: "Page", server: LabelServer, project: int) -> "LabelingPage":
        """Begin to label."""
        page.goto(f"{server.url}/projects/{project}/data?labeling=1")
        return cls(page)

    def next_picture(self, wanted: list[str]) -> str:
        """Wait for one of the pictures; it must show, whatever address the page gave it."""
        for _ in range(600):
            if address := self.page.evaluate(SHOWN, wanted):
                return str(address)
            self.page.wait_for_timeout(100)
        pytest.fail(f"no new picture was shown within a minute: {self.page.url}")

    def answer(self, choice: str) -> None:
        """Click a choice, then Submit; the server has it when this returns."""
        self.page.locator(f"input[type=radio][name='{choice}'], [data-name='{choice}'] input").first.wait_for(
            state="attached"
        )
        self.page.get_by_role("radio", name=choice).first.click()
        with self.page.expect_response(lambda reply: reply.request.method == "POST" and "/annotations" in reply.url):
            self.page.get_by_label("Submit current annotation").click()


def write_one_partition(table_store: TableStore, table: str, frame: pl.DataFrame) -> None:
    """Have a table of one partition."""
    stored = table_store.cache.add(partial(parquet.write, frame))
    table_store.checkout(
        Manifest(table, partitions={"2013-01-10": PartitionEntry(stored.md5, stored.md5, stored.size, frame.height)})
    )


def test_three_delays_that_a_person_explains_by_clicking_become_labels(
    page: "Page", label_studio: LabelServer, tmp_path: Path
) -> None:
    table_store, settings, dataset = TableStore.at(tmp_path), label_studio.settings(), load_dataset("flights")
    dataset = replace(dataset, labels=(replace(dataset.labels[0], title="What caused this delay? (browser)"),))
    for name in ("flights", "weather"):
        write_one_partition(
            table_store, f"validated/flights/{name}", real_flights.validated_rows(name, "2013-01-10", 1).collect()
        )
    project = _sent(dataset, table_store, settings, {"sample": ITEMS, "delayed_by_min": 60, "seed": 7})
    screen = LabelingPage.open(page, label_studio, project)

    page.get_by_text("Late at departure, min").wait_for()
    for choice in ("weather", "carrier", "late_aircraft"):
        screen.answer(choice)
    collect_annotations(dataset, dataset.labels[0], table_store, settings)

    labels = table_store.scan("labels/flights/delay_cause").collect()
    assert sorted(labels["label"]) == ["carrier", "late_aircraft", "weather"]
    assert (
        labels.join(table_store.scan("validated/flights/flights").collect(), on=dataset.labels[0].keys).height == ITEMS
    )


def test_three_pictures_that_a_person_sees_and_reads_become_labels(
    page: "Page", label_studio: LabelServer, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    campaign = DigitsCampaign.create(label_studio, s3, tmp_path, "Which digit is this? (browser)", count=20)
    campaign.send(sample=ITEMS)
    truth = digits.true_digits()
    by_picture = {task["data"]["picture"]: truth[item] for item, task in campaign.tasks().items()}
    screen = LabelingPage.open(page, label_studio, campaign.project)

    while by_picture:
        address = screen.next_picture(list(by_picture))
        screen.answer(by_picture.pop(address))
    campaign.collect()

    labels = dict(campaign.table_store.scan("labels/digits/digit").select("sample_id", "label").collect().iter_rows())
    assert labels == {item: truth[item] for item in campaign.tasks()}


def _sent(dataset: Dataset, table_store: TableStore, settings: Settings, params: dict[str, int]) -> int:
    """Send the sample; the project's number."""
    sent = send_tasks(dataset, dataset.labels[0], table_store, settings, params)
    return int(sent.project_url.rpartition("/")[2])
