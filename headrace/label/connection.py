"""What the environment says about labeling: the server, the token, the key of pseudonyms; and the project there."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING

from headrace.dataset import LabelingTask
from headrace.errors import NotConfiguredError
from headrace.label.errors import LabelsWouldVanishError, NothingSentError
from headrace.label.item_signature import ItemSigner, is_signed, project_mark
from headrace.settings import Settings
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.label.label_studio.client import LabelStudioClient, LabelStudioProject
    from headrace.label.label_studio.tasks import ProjectTasks, TaskSummary


def connect(settings: Settings) -> "AbstractContextManager[LabelStudioClient]":
    """The Label Studio that the environment names.

    Raises:
        NotConfiguredError: It names none, or no token.
    """
    from headrace.label.label_studio.client import open_label_studio  # noqa: PLC0415  the SDK is slow to import

    if not settings.label_studio_url or not settings.label_studio_token:
        raise NotConfiguredError(
            "Labeling needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY (a token of an account there), found"
            f" {settings.label_studio_url or 'no address'} and {'a' if settings.label_studio_token else 'no'} token."
            " `headrace stack up` starts a server and writes both."
        )
    return open_label_studio(settings.label_studio_url, settings.label_studio_token.get_secret_value())


def find_project(client: "LabelStudioClient", labeling: LabelingTask, *, collected: int = 0) -> "LabelStudioProject":
    """The project of a labeling task.

    Args:
        client: Label Studio.
        labeling: The labeling task.
        collected: How many answers were collected from it before.

    Raises:
        LabelsWouldVanishError: There is none, although answers were collected from it.
        NothingSentError: There is none.
    """
    project = client.find_project(labeling.title, labeling.config, project_mark(labeling))
    if project:
        return project
    if collected:
        raise _no_project(client, labeling, collected)
    raise NothingSentError(f"{_missing(client, labeling)}: send the tasks first, with `headrace label send`.")


def ensure_project(client: "LabelStudioClient", labeling: LabelingTask, collected: int) -> "LabelStudioProject":
    """The project of a labeling task, created if there is none and nothing was collected yet.

    Args:
        client: Label Studio.
        labeling: The labeling task.
        collected: How many answers were collected from it before.

    Raises:
        LabelsWouldVanishError: There is none, although answers were collected from it: in another project, the same
            questions would be asked again, and the answers would count as deleted.
    """
    mark = project_mark(labeling)
    project = client.find_project(labeling.title, labeling.config, mark)
    if not project:
        if collected:
            raise _no_project(client, labeling, collected)
        return client.create_project(labeling.title, labeling.config, mark)
    client.mark_project(project, mark)
    return project


def _missing(client: "LabelStudioClient", labeling: LabelingTask) -> str:
    return f"Label Studio at {client.url} has no project {labeling.title!r}"


def _no_project(client: "LabelStudioClient", labeling: LabelingTask, collected: int) -> LabelsWouldVanishError:
    return LabelsWouldVanishError(
        f"{_missing(client, labeling)}, but {pluralize(collected, 'answer')} {'was' if collected == 1 else 'were'}"
        " collected from it. Nothing was changed. Restore the server's data, or set LABEL_STUDIO_URL to the right"
        " server, then run the same command again. If the server's data is lost, declare new questions as another"
        " labeling task, and keep this one: its labels stay."
    )


def item_signer(labeling: LabelingTask, settings: Settings) -> ItemSigner:
    """What signs the tasks of a labeling task; it signs nothing where HEADRACE_PSEUDONYM_KEY is not set."""
    key = settings.pseudonym_key
    return ItemSigner(project_mark(labeling), key.get_secret_value() if key else None)


def own_task_check(tasks: "ProjectTasks", signer: ItemSigner) -> "Callable[[TaskSummary], bool]":
    """Tells the tasks that were sent from those that somebody has edited or imported.

    A task without a signature is ours if it is older than every signed one: a version up to 0.2 may have sent it.
    """
    first_signed = cache(tasks.first_signed)

    def is_ours(task: "TaskSummary") -> bool:
        if not task.item:
            return False
        if is_signed(task.data):
            return not signer.find_problem(task.data)
        first = first_signed()
        return first is None or task.id < first

    return is_ours


def pseudonym_key(settings: Settings) -> str:
    """The key that annotators' and reviewers' pseudonyms are made with.

    Raises:
        NotConfiguredError: There is none.
    """
    if not settings.pseudonym_key:
        raise NotConfiguredError(
            "Collecting needs HEADRACE_PSEUDONYM_KEY: annotators enter the history under a pseudonym made with it,"
            " never by name. Set it to a long random text, once, and keep it: with another key the same people get"
            " other pseudonyms."
        )
    return settings.pseudonym_key.get_secret_value()
