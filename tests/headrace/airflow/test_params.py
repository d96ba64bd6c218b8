"""What a person types into Airflow's trigger form is checked by Airflow before a task runs."""

from typing import Any

import pytest
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError

from headrace.airflow import labels, refresh


@pytest.mark.parametrize(
    ("params", "name", "value"),
    [
        (refresh.PARAMS, "full", "maybe"),
        (refresh.PARAMS, "full", None),
        (refresh.PARAMS, "full", "; rm -rf /"),
        (labels.PARAMS, "share", 1.5),
        (labels.PARAMS, "share", "half"),
        (labels.PARAMS, "hours", 0),
        (labels.PARAMS, "hours", "soon"),
        (labels.PARAMS, "hours", None),
        (labels.PARAMS, "poll_s", 0),
    ],
)
def test_a_value_that_the_command_could_not_use_is_refused_by_the_form(params: Any, name: str, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ParamValidationError, match=f"Invalid input for param {name}"):
        ParamsDict({**params, name: _with_value(params[name], value)}).validate()


def test_the_values_that_the_forms_begin_with_are_valid() -> None:
    for params in (refresh.PARAMS, labels.PARAMS):
        assert ParamsDict(dict(params)).validate() == {name: param.value for name, param in params.items()}


def _with_value(param: Any, value: Any) -> Any:  # noqa: ANN401  Airflow's own
    changed = type(param)(param.value, **param.schema)
    changed.value = value
    return changed
