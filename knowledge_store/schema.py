"""The tables, the same for SQLite and PostgreSQL. Who writes them: ``staging.py``, ``publish.py``, ``store.py``.

A *layer* holds the facts of one module. A row of it holds from generation `from_gen` up to, not including, `to_gen`.
A *state* says which layer a module shows in which generations. So a merge closes and opens rows of a layer, and a
replacement fills a layer that nobody sees and then lets the state point to it.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

SCHEMA_VERSION: Final = 2
OPEN: Final = 2**62
"""`to_gen` of what no generation has ended."""

_Number = BigInteger().with_variant(Integer, "sqlite")
_Name = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

counter = Table(
    "counter",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next", _Number, nullable=False),
)
"""The next free number of facts and layers, taken under the write lock, so numbers only grow and are never reused."""

generation = Table(
    "generation",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False, index=True),
    Column("author", Text, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("generation", _Number, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, primary_key=True, autoincrement=False),
    Column("module_id", _Number, nullable=False),
    Column("operation", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("added", _Number, nullable=False),
    Column("changed", _Number, nullable=False),
    Column("deleted", _Number, nullable=False),
)
"""What each generation did to each module: the history."""

module = Table(
    "module",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("name", _Name, nullable=False, unique=True),
)

layer = Table(
    "layer",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("published", Boolean, nullable=False),
    Column("touched", Text, nullable=False),
)

state = Table(
    "state",
    metadata,
    Column("module_id", _Number, ForeignKey("module.id"), primary_key=True),
    Column("from_gen", _Number, primary_key=True),
    Column("to_gen", _Number, nullable=False, index=True),
    Column("layer_id", _Number, nullable=False),
    Column("mounted", Boolean, nullable=False),
    Column("precedence", Integer, nullable=False),
    Column("policy", Text, nullable=False),
    Column("facts", _Number, nullable=False),
    Column("changed_in", _Number, nullable=False),
)

relation = Table(
    "relation",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("key", _Name, nullable=False),
    Column("key64", _Number, nullable=False, index=True),
)
"""The vocabulary: one row for each normal form of a relation's name that any fact ever had."""

declaration = Table(
    "declaration",
    metadata,
    Column("relation_id", _Number, primary_key=True),
    Column("from_gen", _Number, primary_key=True),
    Column("to_gen", _Number, nullable=False),
    Column("name", Text, nullable=False),
    Column("functional", Boolean, nullable=False),
    Column("aliases", Text, nullable=False),
    Column("inverse", Text),
)

fact = Table(
    "fact",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=False),
    Column("layer_id", _Number, nullable=False),
    Column("from_gen", _Number, nullable=False),
    Column("to_gen", _Number, nullable=False),
    Column("subject64", _Number, nullable=False),
    Column("relation_id", _Number, nullable=False),
    Column("value64", _Number, nullable=False),
    Column("subject", Text, nullable=False),
    Column("relation", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("source", Text),
    Column("aliases", Text),
    Column("valid_from", _Name),
    Column("valid_to", _Name),
    Column("digest", LargeBinary(16), nullable=False),
    Column("ordinal", _Number, nullable=False),
)
Index("fact_by_subject", fact.c.subject64, fact.c.relation_id)
Index("fact_by_value", fact.c.value64, fact.c.relation_id)
Index("fact_by_layer", fact.c.layer_id, fact.c.from_gen)
Index(
    "fact_by_end",
    fact.c.to_gen,
    sqlite_where=text(f"to_gen < {OPEN}"),
    postgresql_where=text(f"to_gen < {OPEN}"),
)

name = Table(
    "name",
    metadata,
    Column("subject64", _Number, primary_key=True, autoincrement=False),
    Column("head64", _Number, nullable=False, index=True),
    Column("tail64", _Number, nullable=False, index=True),
)
"""Every subject that any fact ever had, to be found by one half of its name."""

pin = Table(
    "pin",
    metadata,
    Column("process", Text, primary_key=True),
    Column("generation", _Number, primary_key=True, autoincrement=False),
    Column("until", Text, nullable=False),
)
"""Old generations that a process reads, until a time; it renews them while it does."""

redaction = Table(
    "redaction",
    metadata,
    Column("generation", _Number, primary_key=True, autoincrement=False),
    Column("module_id", _Number, nullable=False),
    Column("at", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("relation", Text, nullable=False),
    Column("facts", _Number, nullable=False),
)
"""Tombstones: that something was erased, not what."""

alias = Table(
    "alias",
    metadata,
    Column("alias64", _Number, primary_key=True),
    Column("fact_id", _Number, primary_key=True),
    Column("subject64", _Number, nullable=False),
)
Index("alias_by_fact", alias.c.fact_id)

retraction = Table(
    "retraction",
    metadata,
    Column("layer_id", _Number, primary_key=True),
    Column("ordinal", _Number, primary_key=True),
    Column("subject64", _Number, nullable=False),
    Column("relation_id", _Number, nullable=False),
    Column("value64", _Number),
)
"""Deletions that wait with a staged layer; gone once it is published."""
