"""The log of every write: who did what to which module, when, and what came of it. A line of JSON each, only appended.

Holds names and counts, never facts: these are in the store's own history. Written on the writer's thread.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import structlog

_log = structlog.get_logger("metabolism.audit")


class AuditLog:
    """A file that grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: TextIO | None = None

    def note(self, action: str, *, author: str, request_id: str, outcome: str, **details: str | int | None) -> None:
        """Add a line. A disk that does not take it is told to the log: the write itself is done already."""
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "action": action,
            "author": author,
            "request_id": request_id,
            "outcome": outcome,
            **details,
        }
        try:
            if self._stream is None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self._file.open("a", encoding="utf-8")
            self._stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as error:
            _log.error("audit_failed", file=str(self._file), reason=str(error), **entry)

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
