"""The core folder: what a run makes, what the service loads, and the record that says where it comes from.

`core.json` is a claim that can be checked: the base and its digest, the digests of the facts, the resolved config, the
versions, the protocol, and the measured report, which is none until an evaluation has been run.
"""

import json
import shutil
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from knowledge_store.protocol import PROTOCOL_VERSION
from trainer.errors import ArtifactError, RunExistsError
from trainer.files import room, write_whole

RECORD = "core.json"
_PACKAGES = ("digital-metabolism", "torch", "transformers", "tokenizers", "accelerate", "peft", "safetensors")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BaseRecord(_Record):
    """The base that a core was made of."""

    name: str = Field(description="folder or hub name")
    digest: str = Field(description="digest of its weights, or its commit")
    added_tokens: tuple[str, ...] = Field(default=(), description="tokens that the base did not have")


class DataRecord(_Record):
    """A file that went into a run: facts that were taken out, own wording of relations, text that was held on to."""

    kind: Literal["facts", "phrasings", "neutral"] = "facts"
    name: str
    sha256: str
    rows: int = Field(description="how many facts, lines of wording, or lines of text")
    left_out: int = Field(default=0, description="lines of text that state a target fact and were not read")


class TargetsRecord(_Record):
    """How many facts were taken out, and how many were left out because the base never knew them."""

    taken_out: int
    not_known: int = 0
    wordings: int = Field(default=0, description="in how many those were asked; 0 where none was")


class CoreRecord(_Record):
    """What `core.json` holds."""

    schema_version: Literal[1] = 1
    name: str = Field(description="name of the core")
    kind: Literal["core", "base", "control"] = Field(default="core", description="a core, or a base of `pretrain`")
    created: datetime
    protocol_version: int = Field(default=PROTOCOL_VERSION, description="of the protocol that the core speaks")
    base: BaseRecord | None = Field(default=None, description="none for a base that was trained from nothing")
    data: tuple[DataRecord, ...] = ()
    targets: TargetsRecord | None = None
    config: dict[str, Any] = Field(description="the resolved config of the run")
    versions: dict[str, str]
    training: dict[str, Any] = Field(default_factory=dict, description="last canaries and figures of the run")
    report: dict[str, Any] | None = Field(default=None, description="measured by `evaluate`; none until then")
    made_of: "CoreRecord | None" = Field(default=None, description="the base's own record, where it has one")


def versions() -> dict[str, str]:
    """The versions that a core was made with."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> datetime:
    """The time of a record, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def write_core(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, record: CoreRecord, *, shard: str = "2GB"
) -> Path:
    """Write a core folder, whole or not at all; the weights as bfloat16.

    Raises:
        RunExistsError: the folder holds something; nothing was overwritten.
        ArtifactError: the disk is full or not writable.
    """
    if folder.exists() and any(folder.iterdir()):
        raise RunExistsError(f"{folder} is not empty and was left as it is; choose another output")
    draft = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _save_rounded(model, draft, shard)
        tokenizer.save_pretrained(draft)
        (draft / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        draft.replace(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise ArtifactError(f"cannot write into {folder}, with {room(folder)}: {error}; make room and go on") from error
    return folder


def _save_rounded(model: PreTrainedModel, folder: Path, shard: str) -> None:
    module: nn.Module = model
    before = model.dtype
    try:
        module.to(torch.bfloat16)
        model.save_pretrained(folder, max_shard_size=shard)
    finally:
        module.to(before)


def read_record(folder: Path) -> CoreRecord:
    """Read a core's record.

    Raises:
        ArtifactError: it is missing or malformed.
    """
    try:
        return CoreRecord.model_validate_json((folder / RECORD).read_bytes())
    except OSError as error:
        raise ArtifactError(f"{folder} has no {RECORD}; a core folder comes from `metabolism train`") from error
    except ValidationError as error:
        raise ArtifactError(f"{folder / RECORD} is malformed: {error}") from error


def record_of_base(model: str) -> CoreRecord | None:
    """The record of a base that this package made, such as a core that is trained on; none for any other.

    Raises:
        ArtifactError: there is one, and it is malformed.
    """
    folder = Path(model)
    return read_record(folder) if (folder / RECORD).is_file() else None


def write_report(folder: Path, report: dict[str, Any]) -> CoreRecord:
    """Put a measured report into a core's record, in one step.

    Raises:
        ArtifactError: there is no record, or it cannot be written.
    """
    record = read_record(folder).model_copy(update={"report": report})
    try:
        write_whole(folder / RECORD, record.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise ArtifactError(f"cannot write {folder / RECORD}: {error.strerror}") from error
    return record


def core_schema() -> str:
    """The JSON schema of `core.json`, for those who read it without this package."""
    return json.dumps(CoreRecord.model_json_schema(), indent=2)
