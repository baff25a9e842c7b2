"""Checkpoints: written whole or not at all, verified when read, enough to go on as if nothing had happened.

A checkpoint is a folder with the tensors (`state.pt`) and what they mean (`state.json`, with a digest of the tensors).
It is written beside its place and moved there in one step, so a crash or a full disk leaves the earlier ones whole.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.errors import CheckpointError
from trainer.files import room

_PREFIX = "step-"
KEPT = "what is written is whole, what came after the last checkpoint is computed again"
"""What a full disk leaves of a run."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a run stands: the stage, the next step in it, and the next step over all stages."""

    stage: int = 0
    step: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `state.json` says."""

    cursor: Cursor
    sha256: str
    history: tuple[dict[str, float | str | None], ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

    manifest: Manifest
    tensors: Mapping[str, Any]


_MANIFEST = TypeAdapter(Manifest)


def save_checkpoint(
    folder: Path,
    cursor: Cursor,
    tensors: Mapping[str, Any],
    history: tuple[dict[str, float | str | None], ...],
    *,
    keep: int,
) -> Path:
    """Write a checkpoint into `folder` and forget all but the last `keep`.

    Those of later steps are forgotten too: they are of the way that was left when an earlier one was taken up.

    Raises:
        CheckpointError: the disk is full or not writable; the earlier checkpoints are whole.
    """
    place = folder / f"{_PREFIX}{cursor.total:08d}"
    draft, aside = (folder / f".{place.name}.{end}" for end in ("part", "old"))
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        with (draft / "state.pt").open("wb") as file:
            torch.save(dict(tensors), file)
            file.flush()
            os.fsync(file.fileno())
        manifest = Manifest(cursor, _digest(draft / "state.pt"), history)
        (draft / "state.json").write_text(json.dumps(asdict(manifest)), encoding="utf-8")
        if place.exists():
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)
        draft.rename(place)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError, and does not say so
        raise CheckpointError(
            f"cannot write a checkpoint into {folder}, with {room(folder)}: {error}; make room and resume, the earlier "
            "checkpoints are whole"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)
    places = list_checkpoints(folder)
    now = places.index(place) + 1
    for gone in (*places[:now][:-keep], *places[now:]):
        (gone / "state.json").unlink(missing_ok=True)  # first, so that what is half gone is no checkpoint
        shutil.rmtree(gone, ignore_errors=True)
    return place


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run goes on from; None where there is none."""
    return next(reversed(list_checkpoints(folder)), None)


def step_of(place: Path) -> int:
    """How many steps a checkpoint has behind it."""
    return int(place.name.removeprefix(_PREFIX))


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "state.json").is_file())


def load_checkpoint(place: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        manifest = _MANIFEST.validate_json((place / "state.json").read_bytes())
        if _digest(place / "state.pt") != manifest.sha256:
            raise CheckpointError(f"the checkpoint {place} is damaged; resume from an earlier one: --from STEP")
        tensors = torch.load(place / "state.pt", map_location="cpu", weights_only=True)
    except (OSError, ValidationError) as error:
        raise CheckpointError(f"cannot read the checkpoint {place}: {error}") from error
    return Checkpoint(manifest, tensors)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights, whole or not at all.

    Raises:
        CheckpointError: the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    try:
        save_file(
            {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}, draft
        )  # a tied head is written twice
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write {path}, with {room(path.parent)}: {error}; make room and resume, the checkpoints are whole"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read what `save_weights` wrote.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; resume from before that stage's end: --from STEP"
        ) from error


def random_state() -> dict[str, Any]:
    """The state of every generator that code without a seed of its own may draw from."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Undo all drawing since `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
