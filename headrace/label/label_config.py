"""What a label configuration offers, read from its XML: no SDK, so that a declaration can be checked before each run.

The tags and attributes are those of Label Studio's reference: https://labelstud.io/tags/choices and /tags/choice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from headrace.dataset import LabelingTask
from headrace.text import closest

TITLE_LENGTH = range(3, 51)
"""Characters that Label Studio allows in a project's title."""

ONE_CHOICE = frozenset({"single", "single-radio"})
"""Values of `choice` with which an annotator picks one."""


@dataclass(frozen=True)
class ConfigFault:
    """What in a labeling task does not fit its label configuration.

    Attributes:
        field: The argument of `LabelingTask` at fault.
        text: What is expected, what was found, and what to do.
    """

    field: str
    text: str


def config_faults(labeling: LabelingTask) -> Iterator[ConfigFault]:
    """What would make Label Studio refuse the configuration, or make every answer one that is set aside."""
    if len(labeling.title) not in TITLE_LENGTH:
        yield ConfigFault("title", f"expected a title of 3 to 50 characters, found {len(labeling.title)}: shorten it")
    try:
        root = ET.fromstring(labeling.config)  # noqa: S314  the project's own text; expat limits what entities expand to
    except ET.ParseError as error:
        line, _ = error.position
        yield ConfigFault("config", f"its label configuration is not XML: {error} (its line {line}): correct it")
        return
    named = {name: tag for tag in root.iter() if (name := tag.get("name"))}
    control = named.get(labeling.control)
    if control is None:
        offered = [name for name, tag in named.items() if tag.tag == "Choices"]
        hint = closest(labeling.control, offered)
        yield ConfigFault(
            "control", f"its label configuration has no tag named {labeling.control!r}{hint}: correct `control`"
        )
    elif control.tag != "Choices":
        yield ConfigFault(
            "control", f"expected the name of a `Choices` tag, found <{control.tag} name={labeling.control!r}>"
        )
    else:
        yield from _control_faults(labeling, control, named)


def _control_faults(labeling: LabelingTask, control: ET.Element, named: dict[str, ET.Element]) -> Iterator[ConfigFault]:
    shown = control.get("toName", "")
    if missing := [name for name in shown.split(",") if name not in named] if shown else ["toName"]:
        yield ConfigFault(
            "config",
            f"the control {labeling.control!r} is about {', '.join(missing)}, which no tag is named: correct its toName"
            if shown
            else f"the control {labeling.control!r} has no toName: name the tag that it is about",
        )
    kind = control.get("choice", "single")
    if kind not in ONE_CHOICE:
        yield ConfigFault(
            "config",
            f'choice="{kind}" lets people pick several, and an answer of several is set aside: write choice="single"',
        )
    if (control.get("value") or "").startswith("$"):
        return  # each task brings its own choices
    # What an answer holds is the alias where there is one.
    offered = [tag.get("alias") or tag.get("value") or "" for tag in control.iter("Choice")]
    if missing := [choice for choice in labeling.choices if choice not in offered]:
        hints = ", ".join(f"{choice!r}{closest(choice, offered)}" for choice in missing)
        yield ConfigFault(
            "choices", f"its label configuration does not offer {hints}: add them to it, or take them out of `choices`"
        )
    if extra := [choice for choice in dict.fromkeys(offered) if choice not in labeling.choices]:
        yield ConfigFault(
            "choices",
            f"its label configuration offers {', '.join(map(repr, extra))}, and such an answer would be set aside: add"
            " them to `choices`, or take them out of the configuration",
        )
    if twice := sorted({choice for choice in offered if offered.count(choice) > 1}):
        yield ConfigFault("config", f"its label configuration offers {', '.join(map(repr, twice))} more than once")
