"""Finished parts of a comparison, on disk: what was made once is taken up again, never made twice of the same things.

Beside each part stands a digest of all that it was made of.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from trainer.config import Strict
from trainer.files import write_whole

T = TypeVar("T")


class _Kept(Strict, Generic[T]):
    """A part as its file holds it."""

    made_of: str
    part: T


def kept_or_made(kind: type[T], path: Path, made_of: str, make: Callable[[], T]) -> T:
    """The part that `path` holds, if it was made of the same things; otherwise a new one, which is kept there.

    A file that is missing, damaged or of other things is written anew, whole or not at all.
    """
    file = _Kept[kind]  # type: ignore[valid-type]
    try:
        kept = file.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        pass
    else:
        if kept.made_of == made_of:
            return kept.part
    part = make()
    write_whole(path, file(made_of=made_of, part=part).model_dump_json() + "\n")
    return part


def said(settings: Strict, exclude: set[str] | None = None) -> str:
    """Settings as far as they are no defaults, so that an option which is new in the code makes no part anew.

    Nor does a default that is another one now: as with the code's version, a digest does not know it.
    """
    return settings.model_dump_json(exclude_defaults=True, exclude=exclude)


def joint_digest(*parts: str) -> str:
    """One digest of all that a part depends on, in their order."""
    return hashlib.sha256("/".join(parts).encode()).hexdigest()
