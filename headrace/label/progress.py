"""Progress of a labeling task."""

from headrace.dataset import LabelingTask
from headrace.label.connection import connect, find_project
from headrace.label.label_studio.finished import count_finished
from headrace.settings import Settings


def read_progress(labeling: LabelingTask, settings: Settings) -> tuple[int, int]:
    """Tasks that nobody needs to, or can, annotate any more, and all tasks: a few small requests, no data is read.

    Raises:
        NothingSentError: There is no project yet.
        LabelStudioError: The server rejects a request, or does not answer.
    """
    with connect(settings) as client:
        return count_finished(client, find_project(client, labeling))
