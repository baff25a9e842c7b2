"""The command group ``metabolism knowledge``, whole: what the composition file takes."""

from knowledge_store import care_command, fact_command
from knowledge_store.shell import knowledge

__all__ = ["care_command", "fact_command", "knowledge"]
