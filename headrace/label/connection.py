"""The Label Studio that the environment names, and the project in it that asks a question."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from headrace.dataset import LabelingTask
from headrace.errors import NotConfiguredError
from headrace.label.annotations import ItemError
from headrace.label.sync import LabelsWouldVanishError
from headrace.settings import Settings
from headrace.text import pluralize

if TYPE_CHECKING:
    from headrace.label.label_studio.client import LabelStudio, Project


def project_of(server: "LabelStudio", labeling: LabelingTask, *, holding: int = 0) -> "Project":
    """The project of `labeling`.

    Args:
        server: Label Studio.
        labeling: The question.
        holding: Answers that were collected from it before.

    Raises:
        LabelsWouldVanishError: It is gone, and answers were collected from it.
        ItemError: Nothing was sent yet.
    """
    found = server.find_project(labeling.title, labeling.config)
    if found:
        return found
    where = f"Label Studio at {server.wire.url} has no project {labeling.title!r}"
    if holding:
        raise LabelsWouldVanishError(
            f"{where}, but {pluralize(holding, 'answer')} {'was' if holding == 1 else 'were'} collected from it."
            " Nothing was changed. Restore the server's data,"
            " or give LABEL_STUDIO_URL the right server, then run the same command again."
        )
    raise ItemError(f"{where}: send the tasks first, with `headrace label send`.")


def connect(settings: Settings) -> "AbstractContextManager[LabelStudio]":
    """The Label Studio that the environment names.

    Raises:
        NotConfiguredError: It names none, or no token.
    """
    from headrace.label.label_studio.client import opened  # noqa: PLC0415  no other verb needs an HTTP client

    if not settings.label_studio_url or not settings.label_studio_token:
        raise NotConfiguredError(
            "Labels need LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY (a token of an account there), seen"
            f" {settings.label_studio_url or 'no address'} and {'a' if settings.label_studio_token else 'no'} token."
            " `headrace stack up` starts a server and writes both."
        )
    return opened(settings.label_studio_url, settings.label_studio_token.get_secret_value())
