"""What can only fail in a contract is refused when a dataset is loaded, by the name of the column or check at fault."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dataframely as dy
import minimal_dataset
import polars as pl
import pytest
from workspaces import REPOSITORY

from headrace.validate.columns import TimeBounds, one_of, utc_time
from headrace.validate.compile_contract import compile_contract, contract_of
from headrace.validate.errors import InvalidContractError
from headrace.validate.validate_partition import validate_frame


def schema(**members: object) -> type[dy.Schema]:
    """A contract of two good columns and these members."""
    return type("Contract", (dy.Schema,), {"a": dy.Int64(), "b": dy.String(), **members})


def with_rule(rule: Callable[[Any], Any]) -> type[dy.Schema]:
    return schema(some_rule=dy.rule()(rule))


def fault(contract: Any, *, is_batched: bool = False) -> str:  # noqa: ANN401  also what is no contract
    with pytest.raises(InvalidContractError) as error:
        compile_contract(contract, is_batched=is_batched)
    return str(error.value)


def test_a_contract_is_compiled_to_types_required_columns_and_checks_with_their_limits() -> None:
    compiled = compile_contract(
        schema(a=dy.Int64(min=0, max=9), c=dy.Float64(nullable=True), at=utc_time(within=TimeBounds(timedelta(0), END)))
    )

    assert dict(compiled.columns) == {"b": pl.String(), "a": pl.Int64(), "c": pl.Float64(), "at": utc_time().dtype}
    assert compiled.required == {"a", "b", "at"}
    assert [check.name for check in compiled.checks] == [
        *("a|min", "a|max", "c|inf", "c|nan", "at|not_before", "at|before"),
    ]
    assert compiled.describe("a|max") == "a|max (at most 9)"
    assert compiled.describe("at|before") == "at|before (2100-01-01)"
    assert compiled.describe("c|nan") == "c|nan"
    assert compiled.needs_start
    assert not compile_contract(schema()).needs_start


END = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda _: pl.col("nope") > 0, "it reads 'nope', which the contract does not declare"),
        (lambda cls: cls.a.col + 1, "expected True or False for each row, found Int64"),
        (lambda _: pl.col("a", "b").is_null(), "selects several columns at once"),
        (lambda _: pl.all_horizontal(pl.all().is_not_null()), "selects several columns at once"),
        (lambda _: pl.any_horizontal(pl.exclude("a").is_null()), "selects several columns at once"),
        (lambda cls: cls.b.col > 0, "cannot compare string with numeric type"),
        (lambda cls: cls.a.col.max() > 0, "expected an answer for each row, found one for all"),
        (lambda _: pl.lit(value=True), "expected an answer for each row, found one for all"),
        (lambda cls: cls.a.col.head(0).is_null(), "expected an answer for each row"),
        (lambda cls: cls.b.col.str.contains("("), "regex"),
        (lambda _: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda cls: cls.c.col > 0, "raised AttributeError"),
        (lambda _: True, "expected a Polars expression, found True"),
    ],
)
def test_a_rule_that_cannot_be_applied_is_named_with_the_reason(rule: Callable[[Any], Any], message: str) -> None:
    found = fault(with_rule(rule))

    assert found.startswith("the contract Contract (")
    assert "check 'some_rule'" in found
    assert message in found


@pytest.mark.parametrize(
    ("column", "check"),
    [
        (dy.String(regex="("), "v|regex"),
        (dy.Int64(check=lambda column: column + 1), "v|check"),
        (dy.Int64(check={"is_even": lambda column: column.str.len_bytes() == 2}), "v|check__is_even"),
        (dy.Int64(check=one_of("a")), "v|check__one_of"),
    ],
)
def test_a_check_of_a_column_that_cannot_be_applied_is_named(column: dy.Column, check: str) -> None:
    assert f"check {check!r}" in fault(schema(v=column))


def test_every_fault_is_named_and_no_check_that_is_sound() -> None:
    found = fault(schema(v=dy.String(regex="("), w=dy.String(regex="[")))

    assert "'v|regex'" in found
    assert "'w|regex'" in found
    assert "'a" not in found


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"v": dy.Any()}, "column 'v': it has no type that a table can hold"),
        ({"v": dy.Object()}, "column 'v': it has no type that a table can hold"),
        ({"v": dy.List(dy.Any())}, "column 'v': it has no type that a table can hold"),
        ({"v": dy.Datetime()}, "column 'v': times are UTC in microseconds, as `utc_time()` declares them"),
        ({"v": dy.Datetime(time_zone="UTC", time_unit="ms")}, "column 'v': times are UTC in microseconds"),
        ({"v": dy.List(dy.Datetime())}, "column 'v': times are UTC in microseconds"),
        ({"v": dy.Struct({"at": dy.Datetime()})}, "column 'v': times are UTC in microseconds"),
        ({"v": dy.Int64(primary_key=True)}, "column 'v': its key is declared as `Source.key`"),
        ({"v": dy.Int64(metadata={"within": TimeBounds(timedelta(0), END)})}, "column 'v': expected `utc_time(within="),
        ({"v": dy.Int64(alias="_row")}, "column '_row': the name is reserved"),
        ({"v": dy.Int64(alias="_failed_checks")}, "column '_failed_checks': the name is reserved"),
        ({"v": dy.Int64(alias="\x1fstart")}, "the name is reserved"),
        ({"v": dy.Int64(alias="*")}, "column '*': Polars takes the name for a pattern"),
        ({"v": dy.Int64(alias="^a.*$")}, "column '^a.*$': Polars takes the name for a pattern"),
        ({"filter": dy.Int64()}, "'filter' is a method of dataframely.Schema: write `filter_ = dy.…(alias='filter')`"),
        ({"columns": dy.Int64()}, "'columns' is a method of dataframely.Schema"),
        ({"validate": dy.rule()(lambda cls: cls.a.col > 0)}, "'validate' is a method of dataframely.Schema"),
        ({"__hidden": dy.Int64()}, "'__hidden': a name that begins with two underscores is dropped or changed"),
    ],
)
def test_a_column_that_no_row_can_meet_is_named_with_what_to_write(members: dict[str, object], message: str) -> None:
    assert message in fault(schema(**members))


def test_python_s_mangled_names_are_refused_too() -> None:
    class Mangled(dy.Schema):
        __secret = dy.Int64()

    assert "'_Mangled__secret'" in fault(Mangled)


def test_a_contract_without_columns_and_what_is_no_contract_are_refused() -> None:
    assert "it declares no column" in fault(type("Empty", (dy.Schema,), {}))
    assert "expected a contract that is a subclass of dataframely.Schema, found 7" in fault(7)


@pytest.mark.parametrize(
    "columns",
    [
        {"row": dy.Int64(), "checks": dy.Int64(), "column": dy.String(), "index": dy.Int64()},
        {"v": dy.Int64(alias="time hour"), "w": dy.Int64(alias="a|min"), "x": dy.Int64(alias="")},
    ],
)
def test_any_other_name_is_a_name(columns: dict[str, dy.Column]) -> None:
    assert len(compile_contract(schema(**columns)).columns) == 2 + len(columns)


@pytest.mark.parametrize(
    "rule",
    [
        lambda cls: cls.a.col.is_unique(),
        lambda cls: (pl.len() < 3).over(cls.b.col),
        lambda cls: cls.a.col > cls.a.col.mean(),
        lambda cls: cls.a.col.shift().fill_null(0) <= cls.a.col,
        lambda cls: pl.struct("a", "b").is_first_distinct() | cls.a.col.is_null(),
    ],
)
def test_a_check_that_compares_rows_needs_a_source_that_is_validated_partition_by_partition(
    rule: Callable[[Any], pl.Expr],
) -> None:
    contract = with_rule(rule)

    assert "check 'some_rule' compares rows, so the source needs `batch_size=1`" in fault(contract, is_batched=True)
    assert [check.name for check in compile_contract(contract).checks] == ["some_rule"]


def test_checks_of_one_row_are_not_taken_for_checks_that_compare_rows() -> None:
    contract = schema(
        tags=dy.List(dy.Int64(min=0), nullable=True),
        at=utc_time(within=TimeBounds(timedelta(0), timedelta(days=1))),
        rule=dy.rule()(lambda cls: pl.when(cls.a.col > 0).then(cls.b.col.is_in(["x"])).otherwise(cls.a.col % 2 == 0)),
    )

    assert compile_contract(contract, is_batched=True).checks


def test_a_source_names_itself_before_its_contract() -> None:
    source = replace(minimal_dataset.SALES, contract=with_rule(lambda _: True))

    with pytest.raises(InvalidContractError, match=r"source sales: the contract Contract .*'some_rule'"):
        contract_of(source)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (timedelta(1), timedelta(0)),
        (timedelta(0), timedelta(0)),
        (END, datetime(2000, 1, 1, tzinfo=UTC)),
        (datetime(2000, 1, 1), timedelta(0)),  # noqa: DTZ001  what is refused
    ],
)
def test_bounds_that_no_time_can_meet_are_refused_where_they_are_written(first: Any, last: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="TimeBounds: "):
        TimeBounds(first, last)


def test_the_contract_on_the_page_about_contracts_compiles_and_rejects_what_the_page_says() -> None:
    [code, *_] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/contracts.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(code, names)  # noqa: S102  our own page
    day, columns = "2026-01-02", names["Orders"].column_names()
    declared = replace(minimal_dataset.SALES, contract=names["Orders"], key=("order_id",))
    lines = [
        ("00000001", "paid", f"{day}T09:00:00Z", f"{day}T10:00:00Z", "1.230"),
        ("1", "lost", f"{day}T09:00:00", f"{day}T08:00:00Z", "1.239"),
        ("00000002", "paid", f"{day}T09:00:00Z", f"{day}T08:00:00Z", "-1"),
        ("00000001", "open", "2026-01-03T00:00:00Z", None, "1"),
        ("00000001", "open", f"{day}T09:00:00Z", None, "1"),
    ]

    result = validate_frame(pl.DataFrame(lines, schema=columns, orient="row"), declared, day)

    assert result.accepted["amount_eur"].to_list() == [Decimal("1.23")]
    assert [set(checks) for checks in result.rejected["_failed_checks"]] == [
        {"order_id|regex", "status|check__one_of", "ordered_at|zone", "amount_eur|dtype"},
        {"amount_eur|min", "paid_after_ordered"},
        {"ordered_at|before"},
        {"unique(order_id)"},
    ]


BROKEN = '''"""Sales."""

from pathlib import Path

import dataframely as dy
import polars as pl

from headrace.dataset import Dataset, ObjectSource, Source


class Orders(dy.Schema):
    amount = dy.Int64()

    @dy.rule()
    def is_paid(cls) -> pl.Expr:
        return pl.col("paid_at").is_not_null()


def read(path: Path) -> pl.DataFrame:
    return pl.read_csv(path)


DATASET = Dataset(
    description="Orders.",
    owner="shops",
    sources=(Source("orders", ObjectSource("orders/", ".*", ".csv"), read, Orders, lambda rows: rows, ("amount",)),),
)
'''


def test_loading_a_dataset_names_its_folder_source_contract_and_check(tmp_path: Path) -> None:
    folder = tmp_path / "pipelines" / "shop_orders"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(BROKEN)
    (folder.parent / "__init__.py").touch()
    (tmp_path / "dvc.yaml").touch()
    script = "from headrace.project.loading import load_datasets; print(load_datasets()[1]['shop_orders'])"

    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout.startswith(
        "The dataset shop_orders (pipelines/shop_orders) cannot be loaded: source orders: the contract Orders"
        " (pipelines.shop_orders): check 'is_paid': it reads 'paid_at', which the contract does not declare. Fix it"
    )


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("(ab", "unclosed group"), ("[z-a]", "invalid character class range"), ("(?<=x)y", "look-around")],
)
def test_the_reason_for_which_a_pattern_is_none_is_in_the_message(pattern: str, reason: str) -> None:
    schema = type("Patterns", (dy.Schema,), {"name": dy.String(regex=pattern)})

    with pytest.raises(InvalidContractError, match=rf"check 'name\|regex': regex error: .*{reason}"):
        compile_contract(schema)


@pytest.mark.parametrize("values", [(), ("open", 3), (None,)])
def test_one_of_takes_one_text_at_least(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one_of: expected at least one text"):
        one_of(*values)
