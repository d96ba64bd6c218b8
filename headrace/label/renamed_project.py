"""The project in Label Studio of a labeling task that was renamed: it goes on, with every task and every answer.

The mark by which a project is found and the signatures of its tasks hold the name of the labeling task. Each task that
was sent under the old name is signed again, and the mark is replaced last: a rename that was interrupted is finished by
the next one, and no task is sent twice.
"""

from dataclasses import dataclass, replace

from headrace.dataset import LabelingTask
from headrace.label.connection import connect, item_signer
from headrace.label.errors import InvalidItemError
from headrace.label.item_signature import MARK_START, is_signed, project_mark
from headrace.settings import Settings
from headrace.text import pluralize


@dataclass(frozen=True)
class RenamedProject:
    """What became of the project, or would become of it.

    Attributes:
        url: Where people open it; empty if Label Studio has none of the old name.
        title: Its title.
        signed: Tasks that were signed again.
        unsigned: Tasks without a signature, which need none.
        foreign: Tasks that somebody has edited or imported; they are left alone.
    """

    url: str = ""
    title: str = ""
    signed: int = 0
    unsigned: int = 0
    foreign: int = 0


def is_configured(settings: Settings) -> bool:
    """Whether the environment names a Label Studio."""
    return bool(settings.label_studio_url and settings.label_studio_token)


def find_projects(name: str, settings: Settings) -> dict[str, str]:
    """Address → title of the projects of a labeling task of that name, which may not be declared any more.

    Raises:
        LabelStudioError: The server does not answer.
    """
    with connect(settings) as client:
        return {client.project_url(it): it.title for it in client.find_marked(f"{MARK_START}{name} ")}


def rename_project(labeling: LabelingTask, old: str, settings: Settings, *, dry_run: bool = True) -> RenamedProject:
    """Have the project of the labeling task `old` be that of `labeling`, unless it is a dry run.

    Args:
        labeling: The labeling task under its new name; its title is as it was.
        old: The name before.
        settings: Where Label Studio is, and the secret of signatures.
        dry_run: Change nothing.

    Raises:
        InvalidItemError: Tasks are signed, and HEADRACE_PSEUDONYM_KEY is not set.
        LabelStudioError: The server does not answer.
    """
    before = replace(labeling, name=old)
    old_signer, signer = item_signer(before, settings), item_signer(labeling, settings)
    with connect(settings) as client:
        project = next(iter(client.find_marked(project_mark(before))), None)
        if project is None:
            return RenamedProject()
        tasks = client.project_tasks(project)
        ours = [task for task in tasks.list_changed(None) if task.is_ours]
        signed = [task for task in ours if is_signed(task.data)]
        if signed and not signer.secret:
            raise InvalidItemError(
                f"labeling task {labeling.name}: {pluralize(len(signed), 'task')} of project {project.title!r} carry a"
                " signature with the name of the labeling task, and HEADRACE_PSEUDONYM_KEY, which signs, is not set."
                " Nothing was changed. Set it to the secret that they were sent with, then run the same command again."
            )
        to_sign = [task for task in signed if not old_signer.find_problem(task.data)]
        done = [task for task in signed if not signer.find_problem(task.data)]
        if not dry_run:
            for task in to_sign:
                tasks.replace_data(task.id, signer.sign(task.data))
            client.replace_mark(project, project_mark(before), project_mark(labeling))
        foreign = len(signed) - len(to_sign) - len(done)
        return RenamedProject(
            client.project_url(project), project.title, len(to_sign), len(ours) - len(signed), foreign
        )
