"""What Headrace takes from inside dataframely: the only module that knows its private names.

They are `Schema._validation_rules(with_cast=...)` and `expr` of what it returns. The public way to the same answers,
`Schema.filter`, evaluates the rules but does not give them. `tests/headrace/validate/test_dataframely.py` holds the two
to each other, and says in a sentence when a name changes.
"""

from collections.abc import Mapping
from typing import Any

import dataframely as dy


def schema_rules(schema: type[dy.Schema]) -> Mapping[str, Any]:
    """The rules of a schema and its bases: those of methods by their names, those of columns as `<column>|<rule>`."""
    return schema._validation_rules(with_cast=False)  # noqa: SLF001


def rule_expression(rule: Any) -> object:  # noqa: ANN401  dataframely's own
    """What a rule evaluates: an expression, unless the contract is wrong. Raises what the team's function raises."""
    return rule.expr
