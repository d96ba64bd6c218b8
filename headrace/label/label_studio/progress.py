"""How far people are: a few counts, no data read.

Nobody need answer a task any more that enough people answered, or that was skipped and nobody answered. And nobody can
answer one that every account has answered or skipped, whatever is still wanted of it.
"""

from typing import TYPE_CHECKING

from headrace.label.label_studio.tasks import only

if TYPE_CHECKING:
    from headrace.label.label_studio.client import LabelStudio, Project
    from headrace.label.label_studio.tasks import Json


def progress(server: "LabelStudio", project: "Project") -> tuple[int, int]:
    """Tasks that nobody need, or can, answer any more; and all.

    Raises:
        LabelStudioError: There is no such project, or the server refuses, or stays away.
    """
    found = server.counted(project)
    done, tasks = found["finished_task_number"], found["task_number"]
    if done < tasks:
        done += server.tasks_of(project).count([_skips("greater", 0), _answers("equal", 0)])
    if done < tasks:
        done += _nobody_left(server, project)
    return done, tasks


def _nobody_left(server: "LabelStudio", project: "Project") -> int:
    """Tasks that more answers are wanted of than there are accounts left; our own account does not answer."""
    people, tasks = max(server.people() - 1, 1), server.tasks_of(project)
    unfinished = only("completed_at", "empty", "Datetime", value=True)
    some = (
        tasks.count([unfinished, _answers("equal", answers), _skips("greater", people - answers - 1)])
        for answers in range(1, people)
    )
    return sum(some) + tasks.count([unfinished, _answers("greater", people - 1)])


def _answers(operator: str, number: int) -> "Json":
    return only("total_annotations", operator, "Number", number)


def _skips(operator: str, number: int) -> "Json":
    return only("cancelled_annotations", operator, "Number", number)
