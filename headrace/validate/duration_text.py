"""Texts → durations, exactly: ISO 8601, a clock, and what Python, pandas and PostgreSQL print.

Years and months are no duration: their length depends on when they begin.
"""

import polars as pl

SECOND_NS = 1_000_000_000

UNIT_NS = {
    "weeks": 7 * 86_400 * SECOND_NS,
    "days": 86_400 * SECOND_NS,
    "hours": 3_600 * SECOND_NS,
    "minutes": 60 * SECOND_NS,
    "seconds": SECOND_NS,
}

TICK_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000}

NUMBER = r"[+-]?\d{1,18}"
"""Of more digits, no unit fits into 64 bits of microseconds."""

FRACTION = r"(?:[.,](?P<fraction>\d{1,9})0*)?"

ISO = (
    r"^(?P<sign>[+-]?)P"
    rf"(?:(?P<weeks>{NUMBER})W)?(?:(?P<days>{NUMBER})D)?"
    rf"(?:T(?:(?P<hours>{NUMBER})H)?(?:(?P<minutes>{NUMBER})M)?(?:(?P<seconds>{NUMBER}){FRACTION}S)?)?$"
)
"""`P1DT2H3M`, `PT0.5S`, `-P1D`, `PT-1H`."""

CLOCK = (
    rf"^(?:(?P<days>{NUMBER}) days?(?:,? |$))?"
    rf"(?:(?P<clock_sign>[+-]?)(?P<hours>\d{{1,12}}):(?P<minutes>[0-5]\d):(?P<seconds>[0-5]\d){FRACTION})?$"
)
"""`26:03:00.5`, `1 day 02:03:00`, `-1 days +23:59:59`, `1 day, 2:03:00`."""

SHAPE = r"^[+-]?P.*\d[WDHMS]$|^[+-]?(?:\d+ days?|(?:\d+ days?,? [+-]?)?\d+:\d\d:\d\d(?:[.,]\d+)?)$"
"""The two patterns alone would take texts without a number, such as `P` and the empty one."""


def parse_duration(text: pl.Expr, wanted: pl.Duration) -> pl.Expr:
    """The duration of each text, null where it is none or where the unit has no such value."""
    is_iso = text.str.contains("P", literal=True)
    shaped = pl.when(text.str.contains(SHAPE)).then(text)
    iso, clock = shaped.str.extract_groups(ISO), shaped.str.extract_groups(CLOCK)
    iso_ns = _nanoseconds(iso, [*UNIT_NS], iso.struct.field("seconds")) * _sign(iso.struct.field("sign"))
    clock_sign = clock.struct.field("clock_sign")
    of_clock = _nanoseconds(clock, ["hours", "minutes", "seconds"], pl.lit("")) * _sign(clock_sign)
    clock_ns = _nanoseconds(clock, ["days"], None) + of_clock
    is_whole = pl.when(is_iso).then(shaped.str.contains(ISO)).otherwise(shaped.str.contains(CLOCK))
    tick = TICK_NS[wanted.time_unit]
    total = pl.when(is_iso).then(iso_ns).otherwise(clock_ns)
    is_exact = is_whole & (total % tick == 0)
    ticks = (total // tick).cast(pl.Int64, strict=False)
    return pl.when(is_exact).then(ticks).cast(wanted)


def _nanoseconds(groups: pl.Expr, units: list[str], signed: pl.Expr | None) -> pl.Expr:
    """The sum of the parts; the fraction has the sign of the text `signed`, and none is counted if it is None."""
    parts = [_integer(groups.struct.field(unit)) * UNIT_NS[unit] for unit in units]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    if signed is None:
        return total
    fraction = groups.struct.field("fraction").str.pad_end(9, "0")
    return total + _integer(fraction) * _sign(signed)


def _integer(digits: pl.Expr) -> pl.Expr:
    return digits.cast(pl.Int128, strict=False).fill_null(0)


def _sign(text: pl.Expr) -> pl.Expr:
    return pl.when(text.str.starts_with("-")).then(-1).otherwise(1).cast(pl.Int128)
