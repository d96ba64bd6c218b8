"""What can only fail in the declaration of a labeling task: before people's work is lost, not after."""

from collections.abc import Iterator, Mapping

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UTC_MICROSECONDS, LabelingTask
from headrace.label.label_config import config_faults
from headrace.project.faults import (
    Fault,
    argument,
    function_faults,
    key_types_faults,
    name_faults,
    number_faults,
    text_tuple_faults,
    type_of_key,
)

CONSENSUS = ("majority", "dawid_skene", "crowdlab")

RESERVED = {
    "sample_id": "the sample's own id",
    EVENT_TIME: "the time of each label",
    KNOWN_TIME: "the time from which each label is known",
    "event_timestamp": "the time of a request",
    "selection_reason": "why a row was sampled",
    "label": "the label",
    "votes": "the number of answers",
    "agreement": "the share of answers that agree",
    "confidence": "how sure the label is",
}
"""Name → what has it already, in a sample, a labels table or a request."""


def labeling_faults(labeling: LabelingTask) -> Iterator[Fault]:
    """The faults of one labeling task, but for its inputs."""
    yield from name_faults(labeling)
    yield from text_tuple_faults(labeling, "keys", "choices", "allowed_pii", "files")
    for field in ("keys", "choices"):
        if not getattr(labeling, field):
            yield Fault(labeling, (field,), f"expected at least one of `{field}`, found none")
    yield from _key_faults(labeling)
    yield from number_faults(labeling, "no_suggestion_share", 0, 1)
    yield from number_faults(labeling, "annotators_per_item", 1, whole=True)
    yield from number_faults(labeling, "max_annotators_per_item", 1, whole=True)
    inputs = [str(name) for name in labeling.inputs] if isinstance(labeling.inputs, Mapping) else []
    yield from function_faults(labeling, "sample", "params", *inputs)
    yield from function_faults(labeling, "task")
    if labeling.consensus not in CONSENSUS:
        yield Fault(
            labeling, ("consensus",), f"expected a consensus of {', '.join(CONSENSUS)}, found {labeling.consensus!r}"
        )
    elif labeling.consensus == "crowdlab" and labeling.item_features is None:
        yield Fault(
            labeling,
            ("consensus",),
            "the consensus `crowdlab` needs `item_features`: a table, and a function from a row of it to the numbers"
            " that a model may learn from. Declare them, or choose another consensus",
        )
    for name, least in (("agreement", -1), ("gold", 0)):
        found = getattr(labeling.thresholds, name, None)
        if found is not None and not (isinstance(found, int | float) and least <= found <= 1):
            yield Fault(labeling, ("thresholds", name), f"expected {name} from {least} to 1, found {found!r}")
    if not all(isinstance(getattr(labeling, field), str) for field in ("title", "config", "control")):
        yield Fault(labeling, ("config",), "expected texts as `title`, `config` and `control`")
        return
    for fault in config_faults(labeling):
        yield Fault(labeling, (fault.field,), fault.text)


def _key_faults(labeling: LabelingTask) -> Iterator[Fault]:
    yield from key_types_faults(labeling)
    if not isinstance(argument(labeling, "key_types"), Mapping):
        return
    for key in labeling.keys:
        kind = type_of_key(labeling, key)
        if key in RESERVED:
            yield Fault(labeling, ("keys", key), f"the key {key!r} has the name of {RESERVED[key]}: rename it")
        if kind is None or kind.is_float() or kind.is_nested() or kind.is_decimal():
            yield Fault(
                labeling,
                ("key_types", key),
                f"the key {key!r} is declared as {labeling.key_types.get(key)!r}, by which no row is found exactly:"
                " declare text, a whole number, a truth value, a date or a time",
            )
        elif kind.base_type() is type(UTC_MICROSECONDS) and kind != UTC_MICROSECONDS:
            yield Fault(
                labeling,
                ("key_types", key),
                f"the key {key!r} is declared as {kind}: times are UTC in microseconds, `UTC_MICROSECONDS`",
            )
