"""How many tasks are finished, in a few counts: no data is read.

A task is finished if enough people annotated it, if it was skipped and nobody annotated it, or if every account has
annotated or skipped it, however many more annotations are wanted.
"""

from label_studio_sdk.data_manager import Column, Filters, Operator, Type

from headrace.label.label_studio.client import LabelStudioClient, LabelStudioProject
from headrace.label.label_studio.tasks import IS_SKIPPED, Json


def count_finished(client: LabelStudioClient, project: LabelStudioProject) -> tuple[int, int]:
    """Tasks that nobody needs to, or can, annotate any more; and all tasks.

    Raises:
        LabelStudioError: There is no such project, or the server rejects the request or does not answer.
    """
    finished, tasks = client.task_counts(project)
    if finished < tasks:
        finished += client.project_tasks(project).count([IS_SKIPPED, _annotations(Operator.EQUAL, 0)])
    if finished < tasks:
        finished += _count_exhausted(client, project)
    return finished, tasks


def _count_exhausted(client: LabelStudioClient, project: LabelStudioProject) -> int:
    """Tasks that more annotations are wanted of than there are accounts left. Our own account does not annotate."""
    people, tasks = max(client.count_users() - 1, 1), client.project_tasks(project)
    unfinished = Filters.item(Column.completed_at, Operator.EMPTY, Type.Datetime, value=True)
    partly = (
        tasks.count([unfinished, _annotations(Operator.EQUAL, number), _skips_above(people - number - 1)])
        for number in range(1, people)
    )
    return sum(partly) + tasks.count([unfinished, _annotations(Operator.GREATER, people - 1)])


def _annotations(operator: str, number: int) -> Json:
    condition: Json = Filters.item(Column.total_annotations, operator, Type.Number, number)
    return condition


def _skips_above(number: int) -> Json:
    condition: Json = Filters.item(Column.cancelled_annotations, Operator.GREATER, Type.Number, number)
    return condition
