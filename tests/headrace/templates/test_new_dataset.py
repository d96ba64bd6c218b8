"""`headrace new` from files: what is inferred, the code that is written, and inputs that are hard to read.

Whatever the sample, the declaration is one that runs: its contract accepts every row of its own sample, except rows
that repeat a key.
"""

import csv
import gzip
import importlib.util
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from workspaces import REPOSITORY

from headrace.dataset import ObjectSource, Source
from headrace.settings import Settings
from headrace.templates import csv_sample, object_sample
from headrace.templates.create_dataset import NewDatasetError, create_dataset
from headrace.templates.csv_sample import DATA_VALUE, SampleError
from headrace.templates.dataset_draft import Assumption, DatasetDraft, draft_dataset
from headrace.templates.declaration import dataset_files
from headrace.templates.example_data import rental_files
from headrace.validate.result import ValidationResult
from headrace.validate.validate_partition import validate_partition


@dataclass(frozen=True)
class Declared:
    """What was written from a sample, loaded, with the files that it matches."""

    draft: DatasetDraft
    source: Source
    code: str
    files: dict[str, Path]

    @property
    def columns(self) -> dict[str, dy.Column]:
        """Raw column → its declaration."""
        return self.source.schema.columns()

    def assumption(self, subject: str) -> Assumption:
        """What was assumed about something."""
        return next(item for item in self.draft.assumptions if item.subject == subject)

    def validate(self) -> dict[str, ValidationResult]:
        """Partition → the rows that its own contract accepts and rejects."""
        return {name: validate_partition(self.source, name, {name: file}) for name, file in self.files.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the tests of this file write datasets; in the end, all of it is clean and formatted."""
    folder = tmp_path_factory.mktemp("written")
    yield folder
    first_party = 'lint.isort.known-first-party=["headrace", "pipelines"]'
    config = ["--config", str(REPOSITORY / "pyproject.toml"), "--config", first_party, "--no-cache"]
    for command in (["check", "--ignore", "INP001"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, *config, str(folder)]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def declare(sample: Path, project: Path, into: Path, name: str = "shop") -> Declared:
    """Draft a dataset from a local sample, and load the code that would be written."""
    draft = draft_dataset(name, str(sample), Settings(workspace=project))
    location = draft.source.location
    assert isinstance(location, ObjectSource)
    place = into / f"{name}_{len(list(into.iterdir()))}"
    for path, text in dataset_files(draft.source, "data team").items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    module = place / f"sources/{draft.source.name}.py"
    spec = importlib.util.spec_from_file_location(f"declared_{place.name}", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    above = sample if sample.is_dir() else sample.parent
    matched = object_sample.sample_path(sample, project).pattern.partitions
    return Declared(draft, loaded.SOURCE, module.read_text(), {name: above / key for key, name in matched.items()})


def orders(**columns: list[str]) -> bytes:
    """A CSV file of these columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue().encode()


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def write(folder: Path, content: bytes, name: str = "orders.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def accepts_its_sample(declared: Declared) -> bool:
    return not any(result.rejected.height for result in declared.validate().values())


# What is inferred


def test_a_day_of_rentals_becomes_the_declaration_that_one_would_write(folder: Path, written: Path) -> None:
    for name, text in rental_files().items():
        write(folder / "rentals", text.encode(), name)

    found = declare(folder / "rentals", folder, written)

    assert found.source.name == "rentals"
    assert found.source.location == ObjectSource(
        location="file:rentals/",
        partition=r"(?P<partition>\d{4}-\d{2}-\d{2})\.csv",
        suffix=".csv",
    )
    assert found.source.key == ("started_at", "rental_id")
    assert {name: type(column).__name__ for name, column in found.columns.items()} == {
        "rental_id": "String",
        "station": "String",
        "started_at": "Datetime",
        "minutes": "Int64",
        "member": "Bool",
    }
    assert 'station = dy.String(check=one_of("harbour", "market", "museum"))' in found.code
    assert "started_at = utc_time(within=TimeBounds(timedelta(0), timedelta(days=1)))" in found.code
    assert accepts_its_sample(found)


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (["true", "False"], "dy.Bool()"),
        (["1", "-2"], "dy.Int64()"),
        (["1.5", "2"], "dy.Float64()"),
        (["2026-01-09", "2025-12-31"], "dy.Date()"),
        (["10:30:00", "23:59:59"], "dy.Time()"),
        (["2026-01-09T10:00:00Z", "2026-01-09 12:00:00+02:00"], "utc_time("),
        (["east", "west"], "dy.String()"),
        (["", ""], "dy.String(nullable=True)"),
        (["1", ""], "dy.Int64(nullable=True)"),
        (["007", "010"], "dy.String()"),
        (["100000000000000000000", "1"], "dy.String()"),
        (["20260109", "20251231"] * 10, "dy.Int64()"),
        (["09.01.2026", "2026-01-09"], "dy.String()"),
        (["2026-01-09 10:00:00 Europe/Berlin"] * 2, "dy.String()"),
        (["1,5", "2,25"], "dy.String()"),
        (["2026-01-09T10:00:00", "2026-01-09T11:00:00"], "dy.String()"),
        (["1", "abc"], "dy.String()"),
        (["NULL", "7"], "dy.Int64(nullable=True)"),
        (["2026-02-30", "2026-01-09"], "dy.String()"),
        (["1e400", "1"], "dy.String()"),
    ],
)
def test_a_type_is_inferred_where_every_value_is_exactly_one_of_it(
    folder: Path, written: Path, values: list[str], declared: str
) -> None:
    found = declare(write(folder, orders(order_id=numbers(len(values)), value=values)), folder, written)

    assert found.assumption("column value").assumed.startswith(declared)
    assert accepts_its_sample(found)


def test_a_time_without_a_zone_gets_none(folder: Path, written: Path) -> None:
    times = [f"2026-01-09 10:{minute:02}:00" for minute in range(30)]
    found = declare(write(folder, orders(order_id=numbers(30), at=times)), folder, written)

    assert "times without a zone" in found.assumption("column at").evidence
    assert found.source.key == ("order_id",), "no time leads the key"
    assert "replace_time_zone" in found.assumption("column at").edit
    assert "**at** holds times without a zone" in found.code
    assert found.assumption("time").assumed == "none"


def test_the_zone_of_a_time_is_kept_as_the_instant(folder: Path, written: Path) -> None:
    times = [f"2026-01-09T{hour:02}:30:00+02:00" for hour in range(24)]
    found = declare(write(folder, orders(order_id=numbers(24), at=times)), folder, written)

    (result,) = found.validate().values()
    assert result.accepted["at"].min() == datetime(2026, 1, 8, 22, 30, tzinfo=UTC)


def test_bounds_leave_as_much_room_as_was_seen_and_not_below_zero(folder: Path, written: Path) -> None:
    found = declare(
        write(
            folder,
            orders(
                amount=[str(10 + number % 7) for number in range(100)],
                change=[str(number % 21 - 10) for number in range(100)],
                price=[f"{number % 9 / 4}" for number in range(100)],
                order_id=numbers(100),
            ),
        ),
        folder,
        written,
    )

    assert found.assumption("column amount").assumed == "dy.Int64(min=4, max=22)"
    assert found.assumption("column change").assumed == "dy.Int64(min=-30, max=30)"
    assert found.assumption("column price").assumed == "dy.Float64(min=0.0, max=4.0)"
    assert found.assumption("column order_id").assumed == "dy.Int64(min=0)", "a running number has no greatest"


def test_few_rows_say_nothing_of_bounds_or_closed_sets(folder: Path, written: Path) -> None:
    found = declare(write(folder, orders(order_id=numbers(5), shop=["east"] * 5)), folder, written)

    assert found.assumption("column order_id").assumed == "dy.Int64()"
    assert found.assumption("column shop").assumed == "dy.String()"
    assert "5 values are too few" in found.assumption("column order_id").edit


def test_a_value_seen_once_is_no_closed_set(folder: Path, written: Path) -> None:
    shops = ["east", "west"] * 50
    common = declare(write(folder, orders(order_id=numbers(100), shop=shops)), folder, written)
    rare = declare(write(folder, orders(order_id=numbers(101), shop=[*shops, "north"])), folder, written)

    assert common.assumption("column shop").assumed == 'dy.String(check=one_of("east", "west"))'
    assert rare.assumption("column shop").assumed == "dy.String()"


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"value": ["a", "a", "b"], "order_id": ["1", "2", "3"]}, ("order_id",)),
        ({"shop": ["a", "a", "b"], "line": ["1", "2", "1"], "n": ["1", "1", "1"]}, ("shop", "line")),
        ({"shop": ["a", "a"], "at": ["2026-01-09T10:00:00Z", "2026-01-09T11:00:00Z"]}, ("at",)),
        ({"order_id": ["1", "2"], "at": ["2026-01-09T10:00:00Z"] * 2}, ("at", "order_id")),
        (
            {"placedAt": [f"2026-01-09T1{hour}:00:00Z" for hour in "01"], "Order ID": ["1", "2"]},
            ("placed_at", "order_id"),
        ),
        ({"order_id": ["1", ""], "code": ["x", "y"]}, ("code",)),
    ],
)
def test_the_key_is_the_smallest_set_without_a_null_or_a_repetition_led_by_the_time(
    folder: Path, written: Path, columns: dict[str, list[str]], key: tuple[str, ...]
) -> None:
    found = declare(write(folder, orders(**columns)), folder, written)

    assert found.source.key == key
    assert accepts_its_sample(found)


def test_where_no_columns_identify_a_row_all_of_them_do_and_repeated_rows_are_tolerated(
    folder: Path, written: Path
) -> None:
    found = declare(
        write(folder, orders(shop=["east"] * 5 + ["west"] * 5, amount=numbers(5) * 2 or [])), folder, written
    )
    twice = declare(write(folder, orders(shop=["east", "west", "north", "east"], amount=list("1231"))), folder, written)

    assert found.source.key == ("shop", "amount")
    assert twice.source.key == ("shop", "amount")
    assert "25.0% of the rows repeat an earlier row" in twice.assumption("key").evidence
    (result,) = twice.validate().values()
    assert result.rejected.height == 1 <= twice.source.max_rejected_share * 4


def test_rows_that_mostly_repeat_one_another_are_refused(folder: Path, written: Path) -> None:
    content = orders(shop=["east", "west"], amount=["1", "2"])
    with pytest.raises(SampleError, match=r"orders.csv: expected columns that identify a row.*50.0% of the 4 rows"):
        declare(write(folder, content + b"east,1\nwest,2\n"), folder, written)
    for name in ("2026-01-01.csv", "2026-01-02.csv"):
        write(folder / "in", content, name)
    with pytest.raises(SampleError, match="If each file holds everything once more, it needs its day as a column"):
        declare(folder / "in", folder, written)


@pytest.mark.parametrize(("time", "key"), [("updated_at", ("order_id",)), ("valid_to", ("order_id",))])
def test_a_time_that_changes_or_stands_for_no_end_does_not_lead_the_key(
    folder: Path, written: Path, time: str, key: tuple[str, ...]
) -> None:
    year = 2026 if time == "updated_at" else 9999
    times = [f"{year}-01-{day:02}T00:00:00Z" for day in range(1, 29)]

    found = declare(write(folder, orders(order_id=numbers(28), **{time: times})), folder, written)

    assert found.source.key == key
    assert accepts_its_sample(found)


# Partitions


DAY = r"(?P<partition>\d{4}-\d{2}-\d{2})"
NAME = r"(?P<partition>(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._=-]*)"


@pytest.mark.parametrize(
    ("names", "pattern", "partitions"),
    [
        (["2026-01-01.csv", "2026-01-02.csv"], rf"{DAY}\.csv", ["2026-01-01", "2026-01-02"]),
        (["orders-20260101.csv"], r"orders-(?P<partition>\d{8})\.csv", ["20260101"]),
        (["2026-01.csv.gz", "2026-02.csv.gz"], r"(?P<partition>\d{4}-\d{2})\.csv\.gz", ["2026-01", "2026-02"]),
        (["dt=2026-01-01/a7.csv", "dt=2026-01-02/a12.csv"], rf"dt={DAY}/a\d+\.csv", ["2026-01-01", "2026-01-02"]),
        (["east.csv", "west.csv"], rf"{NAME}\.csv", ["east", "west"]),
        (["all.csv"], ".*", ["all"]),
        (["a_2026-01-01.csv", "b_2026-01-02.csv"], rf"[^/]*{DAY}\.csv", ["2026-01-01", "2026-01-02"]),
        (["a/2026-01-01.csv", "b/2026-01-02.csv"], rf"[^/]*/{DAY}\.csv", ["2026-01-01", "2026-01-02"]),
    ],
)
def test_the_pattern_follows_the_names_of_the_files(
    folder: Path, written: Path, names: list[str], pattern: str, partitions: list[str]
) -> None:
    for name in names:
        content = orders(order_id=[f"{name} {number}" for number in range(3)], amount=numbers(3))
        write(folder / "in", gzip.compress(content) if name.endswith(".gz") else content, name)

    found = declare(folder / "in", folder, written)

    assert isinstance(found.source.location, ObjectSource)
    assert found.source.location.partition == pattern
    assert list(found.files) == partitions


def test_files_of_one_day_are_one_partition(folder: Path, written: Path) -> None:
    for name, ids in (("2026-01-01-a.csv", ["1", "2"]), ("2026-01-01-b.csv", ["3"]), ("2026-01-02-a.csv", ["4"])):
        write(folder / "in", orders(order_id=ids), name)

    found = declare(folder / "in", folder, written)

    assert isinstance(found.source.location, ObjectSource)
    assert found.source.location.partition == rf"{DAY}[^/]*\.csv"
    assert list(found.files) == ["2026-01-01", "2026-01-02"]


def test_files_that_are_no_partition_are_named(folder: Path, written: Path) -> None:
    write(folder / "in", orders(order_id=["1"]), "2026-01-01.csv")
    write(folder / "in", b"notes", "README.md")

    found = declare(folder / "in", folder, written)

    assert "1 others match nothing, such as 'README.md'" in found.assumption("partition").evidence


def test_a_bad_file_among_good_ones_is_announced_and_the_order_of_columns_may_differ(
    folder: Path, written: Path
) -> None:
    write(folder / "in", orders(order_id=numbers(30), amount=numbers(30)), "2026-01-01.csv")
    write(folder / "in", b"", "2026-01-02.csv")
    write(folder / "in", b"order_id,amount,extra\n40,1,2\n", "2026-01-03.csv")
    write(folder / "in", b"amount,order_id\n5,31\n", "2026-01-04.csv")

    found = declare(folder / "in", folder, written)

    assert found.draft.source.table.rows == 31
    assert found.draft.warnings[0].startswith("2026-01-02.csv is empty")
    assert found.draft.warnings[1].startswith("2026-01-03.csv has other columns")


def test_hours_of_a_local_day_are_bounds_with_two_hours_to_spare(folder: Path, written: Path) -> None:
    for day in (1, 2):
        midnight = datetime(2026, 1, day, tzinfo=UTC)
        times = [(midnight + timedelta(hours=hour)).isoformat() for hour in range(5, 29)]
        write(folder / "in", orders(at=times, n=numbers(24)), f"2026-01-{day:02}.csv")

    found = declare(folder / "in", folder, written)

    assert "within=TimeBounds(timedelta(hours=3), timedelta(hours=31))" in found.code
    assert accepts_its_sample(found)


# Hard inputs


def test_an_empty_file_is_refused(folder: Path, written: Path) -> None:
    with pytest.raises(SampleError, match=r"orders.csv is empty: 0 bytes"):
        declare(write(folder, b""), folder, written)


def test_a_header_alone_becomes_text_columns_that_may_be_null(folder: Path, written: Path) -> None:
    found = declare(write(folder, b"order_id,amount\n"), folder, written)

    assert found.assumption("column amount").assumed == "dy.String(nullable=True)"
    assert found.assumption("column amount").evidence == "no value"
    assert accepts_its_sample(found)


def test_a_column_named_twice_is_refused(folder: Path, written: Path) -> None:
    with pytest.raises(SampleError, match="the header names 'amount' more than once"):
        declare(write(folder, b"amount,amount\n1,2\n"), folder, written)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"# exported 2026-01-09\norder_id,amount\n1,2\n", "found '# exported 2026-01-09', while 2 of the 2 lines"),
        (b"sep=;\norder_id;amount\n1;2\n", "found 'sep=,'"),
        (b"1,2026-01-09,3.5\n2,2026-01-10,4.5\n", "found values: '1,2026-01-09,3.5'"),
        (b"order_id,amount\r1,2\r", "found CR alone"),
        (b"\n\n", "expected a header line"),
    ],
)
def test_a_first_line_that_does_not_name_the_columns_is_refused(
    folder: Path, written: Path, content: bytes, found: str
) -> None:
    with pytest.raises(SampleError, match=re.escape(found)):
        declare(write(folder, content), folder, written)


def test_two_hundred_columns_and_a_file_name_with_spaces(folder: Path, written: Path) -> None:
    columns = {f"Value {number}": [str(number * row) for row in range(30)] for number in range(200)}

    found = declare(write(folder, orders(**columns), "my file (1).csv"), folder, written)

    assert found.source.name == "my_file"
    assert len(found.columns) == 200
    assert found.source.key == ("value_1",)
    assert accepts_its_sample(found)


def test_columns_get_names_that_python_and_dataframely_take(folder: Path, written: Path) -> None:
    names = [
        "Order ID",
        "order_id",
        "2nd",
        "class",
        "filter",
        "columns",
        "_row",
        "__x",
        "",
        "Größe (cm)",
        'a"b',
        "日本",
        "^a$",
        "*",
    ]
    rows = [[str(row * 100 + column) for column in range(len(names))] for row in range(3)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([names, *rows])

    found = declare(write(folder, text.getvalue().encode()), folder, written)

    (result,) = found.validate().values()
    assert result.accepted.height == 3
    assert set(result.accepted.columns) == {
        "order_id", "order_id_2", "column_2nd", "class", "filter", "columns", "row", "x", "unnamed", "grosse_cm", "a_b",
        "unnamed_2", "a", "unnamed_3",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["source", "path", "all", "json", "class", "2026"])
def test_a_file_named_like_something_of_python_or_ours_makes_a_module_that_loads(
    folder: Path, written: Path, name: str
) -> None:
    found = declare(write(folder, orders(order_id=numbers(2)), f"{name}.csv"), folder, written)

    assert found.source.name in {"source", "path", "shop"}
    assert accepts_its_sample(found)


def test_a_column_named_like_what_a_contract_uses_does_not_hide_it(folder: Path, written: Path) -> None:
    times = [f"2026-01-09T10:{minute:02}:00Z" for minute in range(40)]
    columns = dict.fromkeys(("datetime", "utc_time", "at"), times) | {
        name: ["a", "b"] * 20 for name in ("dy", "one_of", "shop")
    }

    assert accepts_its_sample(declare(write(folder, orders(**columns)), folder, written))


def test_quotes_separators_and_line_ends_in_fields_are_kept(folder: Path, written: Path) -> None:
    notes = ['said "no"', "a, b", "two\nlines", "", "plain"]
    found = declare(write(folder, orders(order_id=numbers(5), note=notes)), folder, written)

    (result,) = found.validate().values()
    assert result.accepted.sort("order_id")["note"].to_list() == ['said "no"', "a, b", "two\nlines", None, "plain"]


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8-sig", ""),
        ("utf-16", 'encoding="utf-16"'),
        ("latin-1", 'encoding="latin-1"'),
        ("cp1252", 'encoding="cp1252"'),
    ],
)
def test_the_encoding_is_seen_in_the_bytes(folder: Path, written: Path, encoding: str, declared: str) -> None:
    price = "12 €" if encoding == "cp1252" else "12 £"
    content = f"order_id,city,price\n1,Zürich,{price}\n2,Genève,{price}\n".encode(encoding)

    found = declare(write(folder, content), folder, written)

    (result,) = found.validate().values()
    assert declared in found.code
    assert result.accepted["city"].to_list() == ["Zürich", "Genève"]
    assert result.accepted["price"].to_list() == [price, price]


def test_a_file_of_another_encoding_than_the_others_is_named(folder: Path, written: Path) -> None:
    rows = "order_id,city\n1,Zürich\n2,Genève\n"
    write(folder / "in", rows.encode(), "2026-01-01.csv")
    write(folder / "in", b"order_id,city\n3,Bern\n4,Basel\n", "2026-01-02.csv")
    write(folder / "in", rows.replace("1,", "5,").replace("2,", "6,").encode("latin-1"), "2026-01-03.csv")

    found = declare(folder / "in", folder, written)

    evidence = found.assumption("format").evidence
    assert "2026-01-01.csv: is utf-8, so latin-1 reads other letters" in evidence
    assert "2026-01-02.csv" not in evidence


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_the_separator_is_the_one_that_makes_even_records(folder: Path, written: Path, separator: str) -> None:
    lines = [separator.join(fields) for fields in (["order_id", "note"], ["1", "a, b"], ["2", "c"])]

    found = declare(write(folder, "\n".join([*lines, ""]).encode()), folder, written)

    (result,) = found.validate().values()
    assert result.accepted.rows() == [(1, "a, b"), (2, "c")]


def test_a_last_line_without_an_end_is_a_row(folder: Path, written: Path) -> None:
    found = declare(write(folder, b"order_id,amount\n1,2\n2,3"), folder, written)

    (result,) = found.validate().values()
    assert result.accepted.height == 2


def test_words_for_nothing_are_nulls_where_a_column_is_a_number_without_them(folder: Path, written: Path) -> None:
    content = orders(order_id=numbers(4), amount=["1", "-", "NULL", "2"], code=["-", "a", "b", "c"])
    found = declare(write(folder, content), folder, written)

    (result,) = found.validate().values()
    assert result.accepted["amount"].to_list() == [1, None, None, 2]
    assert 'nulls=("", "NA", "NULL", "-")' in found.code
    assert "**Missing values** are also written as" in found.code


@pytest.mark.slow
def test_of_a_large_file_only_the_beginning_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    head = csv_sample.read_head

    def recorded(path: Path, most: int) -> bytes:
        read.append(most)
        return head(path, most)

    monkeypatch.setattr(object_sample, "read_head", recorded)
    line = "{0},2026-01-09T10:00:00Z,east,some text that makes the line longer\n"
    content = "order_id,at,shop,note\n" + "".join(line.format(number) for number in range(1_000_000))
    path = write(folder, gzip.compress(content.encode(), 1), "orders.csv.gz")

    draft = draft_dataset("shop", str(path), Settings(workspace=folder))

    assert draft.source.table.rows == object_sample.MOST_ROWS
    assert max(read) <= object_sample.MOST_BYTES
    assert "the beginning of each" in draft.assumptions[0].evidence


def test_a_record_with_other_fields_is_a_warning_and_not_evidence(folder: Path, written: Path) -> None:
    found = declare(write(folder, b"order_id,amount\n1,2\n2,3,4\n3,5\n"), folder, written)

    warning = found.draft.warnings[0]
    assert "1 line cannot be read and will be rejected rows, the first is orders.csv: line 3, '2,3,4'" in warning
    assert "max_rejected_share=0.49" in found.code
    assert found.assumption("column amount").assumed == "dy.Int64()"


def test_damaged_gzip_and_other_formats_are_named(folder: Path, written: Path) -> None:
    packed = gzip.compress(orders(order_id=numbers(2000)))
    for content, message in (
        (b"PAR1" + b"\0" * 100, "is a Parquet file"),
        (b"PK\3\4" + b"\0" * 100, "is a zip archive or a spreadsheet"),
        (packed[:20] + b"\xff" * 50, "damaged gzip"),
        (b"\0\1\2" * 40, "NUL"),
    ):
        with pytest.raises(SampleError, match=message):
            declare(write(folder, content), folder, written)


def test_a_sample_that_is_not_there_and_an_address_of_no_known_kind_are_named(folder: Path, written: Path) -> None:
    folder.mkdir()
    with pytest.raises(SampleError, match=r"nowhere.csv: there is no such file or folder"):
        declare(folder / "nowhere.csv", folder, written)
    for address in ("gs://bucket/orders/", "https://example.org/orders.csv"):
        with pytest.raises(SampleError, match=r"expected a CSV file, a folder of them, s3://bucket/prefix/"):
            draft_dataset("shop", address, Settings(workspace=folder))
    with pytest.raises(SampleError, match=r"expected files that end in .csv, .tsv or .txt"):
        declare(write(folder / "in", b"x", "a.parquet").parent, folder, written)


@pytest.mark.parametrize("name", ["Shop", "2shop", "my-shop", "class", "../shop", ""])
def test_a_name_that_no_package_can_have_is_refused_before_anything_is_read(folder: Path, name: str) -> None:
    (folder / "pipelines").mkdir(parents=True)
    (folder / "pipelines/__init__.py").touch()

    with pytest.raises(NewDatasetError, match="A dataset's name has lower-case letters"):
        create_dataset(name, "nowhere.csv", Settings(workspace=folder))


CELLS = (
    st.text(st.sampled_from("ab01.,-+:;TZ \"'\nüß€|eE/"), max_size=8),
    st.integers(-(10**20), 10**20).map(str),
    st.integers(-50, 50).map(str) | st.sampled_from(["", "NULL", "-"]),
    st.floats(width=32).map(str),
    st.decimals(-100, 100, places=2).map(str) | st.just(""),
    st.dates().map(str),
    st.times().map(str),
    st.datetimes(timezones=st.just(UTC)).map(lambda time: time.isoformat().replace("+00:00", "Z")),
    st.datetimes(timezones=st.timezones()).map(str),
    st.datetimes().map(str),
    st.booleans().map(str),
    st.sampled_from(["east", "west", ""]),
)
"""What the cells of a column may be."""

HEADERS = st.lists(st.text(st.sampled_from("aB1_ -é\"'."), max_size=6), min_size=1, max_size=4, unique=True)


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    """A header and rows of as many fields, such that a row is not an empty line."""
    header = draw(HEADERS.filter(lambda names: not all(DATA_VALUE.fullmatch(name) for name in names) and names != [""]))
    cells = [draw(st.sampled_from(CELLS)) for _ in header]
    rows = draw(st.lists(st.tuples(*cells).map(list), max_size=60))
    return [header, *(row for row in rows if row != [""])]


@pytest.mark.slow
@given(tables())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_the_table_its_own_contract_accepts_every_row_but_repeated_ones(
    tmp_path: Path, written: Path, table: list[list[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)

    try:
        found = declare(write(tmp_path / "data", text.getvalue().encode()), tmp_path / "data", written)
    except SampleError as error:
        if "expected columns that identify a row" not in str(error):
            raise
        reject()  # the test of repeated rows has such tables

    (result,) = found.validate().values()
    assert result.accepted.height + result.rejected.height == len(table) - 1
    assert {check for check in result.counts if not check.startswith("unique")} == set()


@pytest.fixture(autouse=True, scope="module")
def _forget_modules() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("declared_")]:
        del sys.modules[name]


def test_columns_are_listed_once_in_the_validated_table(folder: Path, written: Path) -> None:
    found = declare(write(folder, orders(order_id=numbers(2), shop=["a", "b"])), folder, written)

    (result,) = found.validate().values()
    assert isinstance(result.accepted, pl.DataFrame)
    assert result.accepted.columns == ["order_id", "shop"]
