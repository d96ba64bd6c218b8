"""Pictures for the docs, of the demo's pages: a refresh and a decision in Airflow, two questions in Label Studio."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from headrace.stack.server import Page as StackPage
from headrace.stack.state import State
from infra.demo.errors import DemoError

WIDTH, HEIGHT = 1400, 620
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
SETTLED_MS = 8_000
"""A page goes on drawing for a while after it has loaded."""

THIRD_TASK = """async title => {
    const projects = await (await fetch("/api/projects?include=id,title")).json()
    const project = projects.results.find(item => item.title === title).id
    const found = await (await fetch(`/api/tasks/?project=${project}&page_size=3&include=id`)).json()
    return [project, found.tasks[2].id]
}"""

Shot = Callable[[Page, StackPage], None]


def take(state: State, folder: Path) -> list[Path]:
    """Take every picture of a running stack in which the demo has run."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {page.name: page for page in state.pages}
    made = []
    for name, (system, show) in SHOTS.items():
        with _browser() as browser:
            show(browser, pages[system])
            browser.wait_for_timeout(SETTLED_MS)
            made.append(folder / f"{name}.png")
            browser.screenshot(path=made[-1])
    return made


@contextmanager
def _browser() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        raise DemoError("The pictures need a browser: expected chromium or google-chrome on the PATH, seen neither.")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        finally:
            browser.close()


def _accept(browser: Page, airflow: StackPage) -> None:
    """What a person is asked before labels are released, and what was said."""
    browser.goto(f"{airflow.address}/auth/login")
    _log_in(browser, "username", airflow)
    browser.goto(f"{airflow.address}/dags/flights_label_delay_cause/")
    run = str(browser.locator("a[href*='/runs/manual']").first.get_attribute("href")).rstrip("/")
    browser.goto(f"{airflow.address}{run}/tasks/release.accept/required_actions")
    browser.wait_for_selector("text=Accept these answers?")


def _refresh(browser: Page, airflow: StackPage) -> None:
    """The last refresh as a graph, its groups open."""
    browser.goto(f"{airflow.address}/auth/login")
    _log_in(browser, "username", airflow)
    browser.evaluate("localStorage.setItem('default_dag_view', '\"graph\"')")
    browser.goto(f"{airflow.address}/dags/flights_refresh/")
    browser.click("a[href*='/runs/manual']")
    for button in ("Expand all task groups", "Collapse Details Panel", "Fit View"):
        browser.wait_for_timeout(SETTLED_MS / 4)
        browser.click(f"[aria-label='{button}'], [title='{button}']")


def _question(browser: Page, label_studio: StackPage) -> None:
    """One question about a flight, with its answer."""
    _task(browser, label_studio, "What caused this delay?")


def _digit(browser: Page, label_studio: StackPage) -> None:
    """One picture of a digit, with its answer."""
    _task(browser, label_studio, "Which digit is this?")


def _task(browser: Page, label_studio: StackPage, title: str) -> None:
    """The third task of a project."""
    browser.goto(f"{label_studio.address}/user/login/")
    _log_in(browser, "email", label_studio)
    project, task = browser.evaluate(THIRD_TASK, title)
    browser.goto(f"{label_studio.address}/projects/{project}/data?task={task}")
    browser.wait_for_selector(f"text={title}")


def _log_in(browser: Page, name: str, page: StackPage) -> None:
    browser.fill(f"input[name={name}]", page.user)
    browser.fill("input[name=password]", page.password)
    with browser.expect_navigation():
        browser.keyboard.press("Enter")


SHOTS: Mapping[str, tuple[str, Shot]] = {
    "airflow-refresh": ("Airflow", _refresh),
    "airflow-accept": ("Airflow", _accept),
    "label-studio-question": ("Label Studio", _question),
    "label-studio-digit": ("Label Studio", _digit),
}
