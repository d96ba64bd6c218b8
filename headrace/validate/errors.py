"""Why a partition or a contract is refused."""

from headrace.errors import HeadraceError


class InvalidContractError(HeadraceError):
    """The contract or the `transform` of a source cannot be applied: the declaration is at fault, not the data."""


class SchemaChangedError(HeadraceError):
    """The columns of a raw partition are not the contract's."""


class ColumnTypeChangedError(HeadraceError):
    """No value of a column is of the type that the contract declares."""


class NaiveTimeError(HeadraceError):
    """A column of times names no zone."""
