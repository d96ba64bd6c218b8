"""Screenshots for the docs: a refresh and a decision in Airflow, two questions in Label Studio."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from headrace.stack.server import Endpoint
from headrace.stack.state import StackState
from infra.demo.errors import DemoError

WIDTH, HEIGHT = 1400, 620
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
SETTLED_MS = 8_000
"""A page continues to draw for a while after it has loaded."""

THIRD_TASK = """async title => {
    const projects = await (await fetch("/api/projects?include=id,title")).json()
    const project = projects.results.find(item => item.title === title).id
    const found = await (await fetch(`/api/tasks/?project=${project}&page_size=3&include=id`)).json()
    return [project, found.tasks[2].id]
}"""

OpenPage = Callable[[Page, Endpoint], None]


def take_screenshots(state: StackState, folder: Path) -> list[Path]:
    """Take every screenshot, on a running stack in which the demo has run."""
    folder.mkdir(parents=True, exist_ok=True)
    endpoints = {endpoint.name: endpoint for endpoint in state.endpoints}
    files = []
    for name, (system, open_page) in SCREENSHOTS.items():
        with _new_page() as page:
            open_page(page, endpoints[system])
            page.wait_for_timeout(SETTLED_MS)
            files.append(folder / f"{name}.png")
            page.screenshot(path=files[-1])
    return files


@contextmanager
def _new_page() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        raise DemoError(
            "The screenshots need a browser: expected chromium or google-chrome on the PATH, found neither."
        )
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            yield browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        finally:
            browser.close()


def _open_decision(page: Page, airflow: Endpoint) -> None:
    """The decision that a person takes before labels are released."""
    page.goto(f"{airflow.address}/auth/login")
    _log_in(page, "username", airflow)
    page.goto(f"{airflow.address}/dags/flights_label_delay_cause/")
    run = str(page.locator("a[href*='/runs/manual']").first.get_attribute("href")).rstrip("/")
    page.goto(f"{airflow.address}{run}/tasks/release.accept/required_actions")
    page.wait_for_selector("text=Accept these answers?")


def _open_refresh(page: Page, airflow: Endpoint) -> None:
    """The last refresh as a graph with expanded groups."""
    page.goto(f"{airflow.address}/auth/login")
    _log_in(page, "username", airflow)
    page.evaluate("localStorage.setItem('default_dag_view', '\"graph\"')")
    page.goto(f"{airflow.address}/dags/flights_refresh/")
    page.click("a[href*='/runs/manual']")
    for button in ("Expand all task groups", "Collapse Details Panel", "Fit View"):
        page.wait_for_timeout(SETTLED_MS / 4)
        page.click(f"[aria-label='{button}'], [title='{button}']")


def _open_question(page: Page, label_studio: Endpoint) -> None:
    """One question about a flight, with its answer."""
    _open_task(page, label_studio, "What caused this delay?")


def _open_digit(page: Page, label_studio: Endpoint) -> None:
    """One image of a digit, with its answer."""
    _open_task(page, label_studio, "Which digit is this?")


def _open_task(page: Page, label_studio: Endpoint, title: str) -> None:
    """The third task of a project."""
    page.goto(f"{label_studio.address}/user/login/")
    _log_in(page, "email", label_studio)
    project, task = page.evaluate(THIRD_TASK, title)
    page.goto(f"{label_studio.address}/projects/{project}/data?task={task}")
    page.wait_for_selector(f"text={title}")


def _log_in(page: Page, field: str, endpoint: Endpoint) -> None:
    page.fill(f"input[name={field}]", endpoint.user)
    page.fill("input[name=password]", endpoint.password)
    with page.expect_navigation():
        page.keyboard.press("Enter")


SCREENSHOTS: Mapping[str, tuple[str, OpenPage]] = {
    "airflow-refresh": ("Airflow", _open_refresh),
    "airflow-accept": ("Airflow", _open_decision),
    "label-studio-question": ("Label Studio", _open_question),
    "label-studio-digit": ("Label Studio", _open_digit),
}
