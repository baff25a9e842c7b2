"""Files on a disk that may be full: written whole or not at all, and what cannot be written is said."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.errors import ArtifactError, TrainerError


def write_whole(path: Path, text: str) -> Path:
    """Write beside its place and move there in one step, so what stood there stands until the new text is whole.

    Raises:
        OSError: the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")  # several processes may write the same
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    return path


@contextmanager
def writing(folder: Path, way_on: Callable[[], str], error: type[TrainerError] = ArtifactError) -> Iterator[None]:
    """Around all that writes into a folder: a full disk or a missing permission is said, with what is left to do.

    Raises:
        ArtifactError: the disk is full or not writable; or the `error` that is named.
    """
    try:
        yield
    except OSError as wrong:
        raise error(f"cannot write into {folder}, with {room(folder)}: {wrong}; make room and {way_on()}") from wrong


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Around long work whose result goes into a folder: make it, and see first that files can be made in it.

    What was made and is still empty when the work fails goes again.

    Raises:
        OSError: no folder or file can be made there.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        yield
    except BaseException:
        for place in made:
            with suppress(OSError):  # what holds something stays, and with it all above
                place.rmdir()
        raise


def room(folder: Path) -> str:
    """How much space is left where a folder is, or is to be, in words."""
    there = next((place for place in (folder, *folder.absolute().parents) if place.is_dir()), Path())
    try:
        return f"{shutil.disk_usage(there).free / 2**20:.0f} MiB free on its disk"
    except OSError:
        return "unknown space on its disk"
