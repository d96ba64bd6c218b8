"""The check `vanished`: the share of partitions, rows or keys that one step would remove from a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.dataset import Guards
from headrace.guards.finding import GuardFinding, hash_state
from headrace.storage.manifest import Manifest
from headrace.storage.manifest_entries import LazyEntries
from headrace.storage.partition_names import hashes_by_partition

CHECK = "vanished"
FEW = 3
"""What fewer than these lose is no mass: a table of two rows may lose one, or hold two others. Losing all is."""

ROUNDING = 0.01
"""How much larger than its input's share the loss of a table may be, and still follow from it: rows are not keys."""

NAMED = 3
"""Names that a text gives of what would vanish."""


@dataclass(frozen=True)
class Loss:
    """What a step would remove from a table.

    Attributes:
        what: What is counted: `partition`, `row`, `key`, `answer`.
        lost: How many would be gone, whatever comes in their place.
        total: How many there were.
        left: How many there would be; of keys online, how many of those of all tables would stay.
    """

    what: str
    lost: int
    total: int
    left: int = 1

    @property
    def share(self) -> float:
        """The part of all that would be gone."""
        return self.lost / self.total if self.total else 0.0

    def is_beyond(self, guards: Guards) -> bool:
        """Whether more would be gone than the bound lets pass."""
        return self.share > guards.max_vanished_share and (self.lost >= FEW or not self.left)

    def __str__(self) -> str:
        """`29 of 30 partitions`."""
        return f"{self.lost:,} of {self.total:,} {self.what}{'' if self.total == 1 else 's'}"


@dataclass(frozen=True)
class TableLoss:
    """What a step would remove from a table, by partitions and by rows.

    Attributes:
        table: The table.
        losses: One per thing that is counted.
        names: First names of what would vanish.
        state: What identifies it: partition and the md5 that it would have, or nothing.
        gone: Partitions that would vanish whole.
    """

    table: str
    losses: Sequence[Loss]
    names: Sequence[str] = ()
    state: Sequence[str] = field(default=(), repr=False)
    gone: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def share(self) -> float:
        """The largest share."""
        return max((loss.share for loss in self.losses), default=0.0)

    def follows_from(self, cause: "TableLoss") -> bool:
        """Whether the loss of a table that this one is computed from explains it.

        It does if nothing vanishes but in partitions that vanish there whole, or if no larger share does.
        """
        same_partitions = bool(self.names) and cause.gone.issuperset(self.names)
        return same_partitions or cause.share + ROUNDING >= self.share

    def finding(
        self, guards: Guards, since: str, also: Sequence["TableLoss"] = (), note: str = ""
    ) -> GuardFinding | None:
        """The finding, if the loss is beyond the bound.

        Args:
            guards: The bounds.
            since: What the table is compared with: `since flights/3`.
            also: Losses of other tables that follow from this one.
            note: What else the text says.
        """
        beyond = [str(loss) for loss in self.losses if loss.is_beyond(guards)]
        if not beyond:
            return None
        more = "" if len(self.names) <= NAMED else ", …"
        names = f" ({', '.join(self.names[:NAMED])}{more})" if self.names else ""
        consequences = "".join(f", and with them {' and '.join(map(str, it.losses))} of {it.table}" for it in also)
        return self.as_finding(
            f"{self.table}: {' and '.join(beyond)} would vanish{names} {since}; at most"
            f" {guards.max_vanished_share:.0%} may{consequences}{note}"
        )

    def as_finding(self, text: str) -> GuardFinding:
        """The loss as a finding, whatever the bound."""
        return GuardFinding(check=CHECK, table=self.table, state_hash=hash_state(self.state), text=text)


def table_loss(before: Manifest | None, after: Manifest) -> TableLoss:
    """What the table would lose: partitions that are gone, and the rows of these and of partitions that hold fewer.

    Reads only the chunks of the manifests in which they differ.
    """
    if before is None:
        return TableLoss(after.table, ())
    had, has = before.entries.without_shared_chunks(after.entries)
    old, new = hashes_by_partition(had.md5s), hashes_by_partition(has.md5s)
    gone = sorted(old.keys() - new.keys())
    changed = [name for name in old.keys() & new.keys() if old[name] != new[name]]
    fewer = _lost_rows(had, has, gone, changed)
    losses = [
        Loss("partition", len(gone), len(before.partition_md5s), len(after.partition_md5s)),
        Loss("row", sum(fewer.values()), before.rows, after.rows),
    ]
    lost = sorted({*gone, *fewer})
    state = [f"{name} {new.get(name, '')}" for name in lost]
    return TableLoss(after.table, [loss for loss in losses if loss.lost], lost, state, frozenset(gone))


def _lost_rows(had: LazyEntries, has: LazyEntries, gone: Sequence[str], changed: Sequence[str]) -> Mapping[str, int]:
    """Partition → rows that it had and has no more; raw bytes, which nobody has counted, are left out."""
    if not (gone or changed):
        return {}
    before, after = had.pick("rows", [*gone, *changed]), has.pick("rows", changed)
    lost = {name: (rows or 0) - (after.get(name) or 0) for name, rows in before.items()}
    return {name: rows for name, rows in lost.items() if rows > 0}
