"""Keys of objects → which partition each is: a date in the key, else the file's name, else all is one partition."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from headrace.dataset import UNPARTITIONED
from headrace.ingest.object_source import PARTITION_NAME
from headrace.templates.csv_sample import SampleError

FILES = re.compile(r"\.(csv|tsv|psv|txt|dat)(\.gz)?$", re.IGNORECASE)
GRAINS = {"day": r"\d{4}-\d{2}-\d{2}", "compact day": r"\d{8}", "month": r"\d{4}-\d{2}"}


@dataclass(frozen=True)
class PartitionPattern:
    """How the keys of a source name its partitions.

    Attributes:
        prefix: What every key begins with.
        pattern: Regular expression over the whole key.
        suffix: File name ending.
        grain: `day`, `compact day`, `month`, `name`, or `all` for one partition.
        partitions: Key → partition, in the order of keys.
        unmatched: Keys that are no partition.
    """

    prefix: str
    pattern: str
    suffix: str
    grain: str
    partitions: dict[str, str]
    unmatched: tuple[str, ...] = ()

    @property
    def are_days(self) -> bool:
        """Whether each partition is named by its day, as feature tables and bounds of time want it."""
        return self.grain == "day"


def single_object_pattern(key: str) -> PartitionPattern:
    """The pattern of a source of one object."""
    suffix = FILES.search(key)
    ending = suffix[0] if suffix else "." + key.rpartition("/")[2].rpartition(".")[2]
    return PartitionPattern(key, _escaped(key), ending, "all", {key: UNPARTITIONED})


def infer_pattern(keys: Sequence[str], prefix: str, where: str) -> PartitionPattern:
    """The pattern of the objects below a prefix.

    Raises:
        SampleError: There is none.
    """
    suffixes = Counter(found[0] for key in keys if (found := FILES.search(key)))
    if not suffixes:
        shown = f", such as {keys[0]!a}" if keys else ""
        raise SampleError(
            f"{where}: expected files that end in .csv, .tsv or .txt (.gz may follow), found {len(keys)} others{shown}."
            " Check the prefix; it is what every key begins with."
        )
    suffix = suffixes.most_common(1)[0][0]
    wanted = sorted(key for key in keys if key.endswith(suffix))
    grain, cuts = _cuts(wanted, prefix, suffix)
    if grain == "all":
        return single_object_pattern(wanted[0])
    before, _, after = zip(*cuts, strict=True)
    group = f"(?P<partition>{GRAINS.get(grain, PARTITION_NAME.pattern)})"
    rest = _generalized(text.removesuffix(suffix) for text in after)
    pattern = f"{_generalized(before)}{group}{rest}{_escaped(suffix)}"
    return _checked(PartitionPattern(prefix, pattern, suffix, grain, {}), keys, where)


def _cuts(keys: Sequence[str], prefix: str, suffix: str) -> tuple[str, list[tuple[str, str, str]]]:
    """How the partition is named, and each key as (before, partition, after)."""
    for grain, form in GRAINS.items():
        cuts = [_cut(key, form) for key in keys]
        if all(cuts):
            return grain, [cut for cut in cuts if cut]
    if len(keys) == 1:
        return "all", []
    return "name", [(prefix, key.removeprefix(prefix).removesuffix(suffix), suffix) for key in keys]


def _cut(key: str, form: str) -> tuple[str, str, str] | None:
    """The key around the last date of this form in it."""
    for found in reversed(list(re.finditer(rf"(?<!\d){form}(?!\d|-\d)", key))):
        if _is_date(found[0]):
            return key[: found.start()], found[0], key[found.end() :]
    return None


def _is_date(text: str) -> bool:
    try:
        return 1900 <= date.fromisoformat(text if len(text) > len("2026-01") else f"{text}-01").year < 2200  # noqa: PLR2004  a number of eight digits is seldom a date
    except ValueError:
        return False


def _generalized(texts: Iterable[str]) -> str:
    """A regular expression for these parts of keys, folder by folder: the name, or the name with any numbers."""
    paths = {tuple(text.split("/")) for text in texts}
    if len({len(path) for path in paths}) > 1:
        return ".*"
    return "/".join(_generalized_name(set(names)) for names in zip(*paths, strict=True))


def _generalized_name(names: set[str]) -> str:
    for form in (_escaped, lambda text: re.sub(r"\d+", r"\\d+", _escaped(text))):
        if len(forms := {form(name) for name in names}) == 1:
            return str(forms.pop())
    return "[^/]*"


def _escaped(text: str) -> str:
    """A regular expression for the text. Unlike `re.escape`, it leaves `-`, `#` and spaces as people write them."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)


def _checked(found: PartitionPattern, keys: Sequence[str], where: str) -> PartitionPattern:
    """The pattern with the partition of each key.

    Raises:
        SampleError: No key has one.
    """
    hits = ((key, re.fullmatch(found.pattern, key)) for key in sorted(keys))
    partitions = {key: hit["partition"] for key, hit in hits if hit}
    if not partitions:
        raise SampleError(
            f"{where}: the names of the {len(keys)} files, such as {keys[0]!a}, cannot be partitions: expected a date"
            " such as 2026-01-09 in each key, or names of letters, digits, `.`, `_`, `=` and `-` below the prefix."
        )
    unmatched = tuple(key for key in sorted(keys) if key not in partitions)
    return PartitionPattern(found.prefix, found.pattern, found.suffix, found.grain, partitions, unmatched)
