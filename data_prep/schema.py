"""How prepared files are laid out; the types of their columns are `medix.row_schema`'s, which preflight needs too."""

from __future__ import annotations

from typing import Final

from medix.row_schema import ROW_SCHEMA as ROW_SCHEMA

ROWS_PER_GROUP: Final = 32
"""Rows in a parquet row group: what a reader holds in memory at once."""
