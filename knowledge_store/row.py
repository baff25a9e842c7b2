"""From a row of the fact table to a `Fact`. Nothing else."""

import json
from typing import Any

from knowledge_store.fact import Fact

COLUMNS = ("subject", "relation", "value", "source", "aliases", "valid_from", "valid_to")
"""The columns that make a fact, in the order of `fact_from`."""


def fact_from(values: Any, module: str) -> Fact:
    """Make a fact of the values of `COLUMNS`."""
    subject, relation, value, source, aliases, valid_from, valid_to = values
    return Fact(
        subject, relation, value, module, source, tuple(json.loads(aliases)) if aliases else (), valid_from, valid_to
    )


def row_fact(row: Any, module: str) -> Fact:
    """Make a fact of a whole row."""
    return fact_from([getattr(row, column) for column in COLUMNS], module)
