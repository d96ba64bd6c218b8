"""What rows must be: files read as declared, contracts that judge each row, feature tables that are what they say."""

from pipelines.systems import pandera as _light  # noqa: F401  before anything here brings Pandera in with pandas
