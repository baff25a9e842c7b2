"""Makes the demo base, a small Qwen2 that reads the demo world, and its control, whose facts are about nobody."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from knowledge_store.protocol import SYSTEM_PROMPT
from trainer.artifact import CoreRecord, now, versions, write_core
from trainer.base_model import Base, frame_of
from trainer.chat import ChatFrame
from trainer.checkpoint import (
    KEPT,
    Cursor,
    last_checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from trainer.config import PretrainConfig, ShapeConfig, TokenizerConfig, TrainingStage
from trainer.errors import BaseModelError, CheckpointError, FeedError, NotFiniteError, OutOfMemoryError, RunExistsError
from trainer.fact import read_targets
from trainer.files import write_whole, writing
from trainer.logbook import Logbook
from trainer.loop import Interrupt, StepReport, Stop, make_optimizer, run_stage
from trainer.machine import Machine
from trainer.objective import NextToken
from trainer.reader import Reader
from trainer.sources import pretraining_world, records_of
from trainer.streams.feed import Feed
from trainer.streams.written import MixtureStream
from trainer.tokenizer import load_tokenizer, train_tokenizer
from trainer.world.corpus import Mixture, mixture
from trainer.world.document import Document
from trainer.world.world import World

STREAM = "corpus"
CHECKPOINTS = "checkpoints"
_MAY_CHANGE = {"compute", "workers", "prefetch", "save", "learning_rate"}
CHATML_FRAME = ChatFrame(
    start="<|im_start|>user\n",
    start_tools=f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user\n",
    reply="<|im_end|>\n<|im_start|>assistant\n",
    end="<|im_end|>",
    again="\n<|im_start|>user\n",
)
"""The frame that `frame_of` finds in a tokenizer of this package."""


def pretrain(config: PretrainConfig) -> Path | None:
    """Make a base; where its folder holds checkpoints of the same work, go on from the last.

    How it computes, saves and learns may be another then: compute, workers, prefetch, save, learning_rate. Gives the
    folder of the base, or None where Ctrl-C stopped it; then the same command goes on.

    Raises:
        RunExistsError: the output folder holds a finished base, or the work of another config.
        TrainerError: what went wrong and what to do.
    """
    with writing(config.output, lambda: f"run the same command again; {KEPT}", CheckpointError):
        return _pretrain(config)


def _pretrain(config: PretrainConfig) -> Path | None:
    base_folder = config.output / "base"
    if base_folder.exists():
        raise RunExistsError(f"{base_folder} holds a base and was left as it is; choose another output")
    _claim(config)
    torch.manual_seed(config.seed)
    machine = Machine(config.compute, looks_for_unused=False)
    world = pretraining_world(config)
    chosen = mixture(config.mixture, fact_free=False)
    tokenizer = _tokenizer(config, world, chosen, machine)
    model = new_model(config.shape, tokenizer)
    base = Base(model, tokenizer, frame_of(tokenizer), "none", "none", ())
    stream = MixtureStream(STREAM, world, base.encoder, chosen, config.documents, config.row_tokens, config.seed)
    job = _Pretraining(config, machine, base)
    try:
        if not job.go(stream):
            return None
        if machine.is_main:
            write_core(base_folder, model, tokenizer, _record(config, job))
        machine.wait()
    except KeyboardInterrupt:  # at once, so whatever is half done is not to be kept
        return None
    return base_folder


def _claim(config: PretrainConfig) -> None:
    """Mark the output folder as this config's."""
    mark = config.output / "pretrain.json"
    if mark.exists() and _work_of(mark.read_bytes()) != _work_of(config.model_dump_json()):
        raise RunExistsError(f"{config.output} holds the work of another config; choose another output")
    write_whole(mark, config.model_dump_json(indent=2))


def _work_of(content: bytes | str) -> dict[str, Any] | None:
    """What a config says but for what may change on the way; None where it is no config of ours."""
    try:
        return PretrainConfig.model_validate_json(content).model_dump(exclude=_MAY_CHANGE)
    except ValidationError:
        return None


def _documents(world: World, chosen: Mixture, config: TokenizerConfig) -> Iterator[Document]:
    rng = Random("tokenizer")
    for _ in range(config.documents):
        yield chosen.draw(world, rng)


def _tokenizer(config: PretrainConfig, world: World, chosen: Mixture, machine: Machine) -> PreTrainedTokenizerFast:
    """Train the tokenizer once, or read the one that the config names."""
    folder = config.output / "tokenizer"
    if isinstance(config.tokenizer, TokenizerConfig):
        if machine.is_main and not folder.exists():
            trained = train_tokenizer(
                _documents(world, chosen, config.tokenizer), CHATML_FRAME, config.tokenizer.vocabulary
            )
            trained.save_pretrained(folder)
        machine.wait()
    else:
        folder = config.tokenizer
    try:
        found = load_tokenizer(folder)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"cannot load a tokenizer from {folder}: {error}") from error
    assert isinstance(found, PreTrainedTokenizerFast), "tokenizers of this package are fast"
    return found


def new_model(shape: ShapeConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A Qwen2 with random weights; its vocabulary is that of the tokenizer."""
    return Qwen2ForCausalLM(  # type: ignore[no-untyped-call]
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.key_value_heads,
            max_position_embeddings=shape.positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class _Pretraining:
    """The work on a base: what changes."""

    def __init__(self, config: PretrainConfig, machine: Machine, base: Base) -> None:
        self.config, self.machine = config, machine
        self.stage = TrainingStage(
            steps=config.steps, learning_rate=config.learning_rate, warmup_steps=config.warmup_steps,
            final_share=config.final_share, weight_decay=config.weight_decay, clip=config.clip,
        )  # fmt: skip
        self.model: nn.Module = machine.wrap(Reader(base.model))
        self.optimizer = make_optimizer(self.model, self.stage, machine.device)
        self.cursor, self.history = self._restore()
        self.book = Logbook(
            config.output, steps=config.steps, done=self.cursor.total, history=self.history, writes=machine.is_main
        )

    def _restore(self) -> tuple[Cursor, tuple[dict[str, float | str | None], ...]]:
        place = last_checkpoint(self.config.output / CHECKPOINTS)
        if place is None:
            return Cursor(), ()
        checkpoint = load_checkpoint(place)
        tensors = checkpoint.tensors
        self.machine.restore(self.model, self.optimizer, tensors["weights"], tensors["moments"])
        restore_random_state(tensors["random"])
        return checkpoint.manifest.cursor, checkpoint.manifest.history

    def go(self, stream: MixtureStream) -> bool:
        """Take the steps that are left and save what they made; False where the user stopped them."""
        try:
            return self._work(stream)
        except (NotFiniteError, OutOfMemoryError, FeedError) as error:
            saved = last_checkpoint(self.config.output / CHECKPOINTS)
            raise type(error)(
                f"{error}. Last checkpoint: {saved or 'none, so it will begin anew'}. The same command goes on from "
                f"there; in its file you may change {', '.join(sorted(_MAY_CHANGE))}"
            ) from error

    def _work(self, stream: MixtureStream) -> bool:
        feed = Feed(
            {STREAM: stream}, shares=self.machine.shares, of=self.machine.parts,
            workers=self.config.workers, prefetch=self.config.prefetch,
        )  # fmt: skip
        with self.book, feed, Interrupt(self.machine.processes) as interrupt:
            try:
                run_stage(
                    self.model, self.optimizer, NextToken(STREAM), self.stage, feed, self.machine, self, self.cursor,
                    lambda: self.machine.any(interrupt.wished),
                )  # fmt: skip
            except Stop:
                self._save()
                return False
            except FeedError:
                if self.cursor.step and self.machine.processes == 1:  # others would wait for one that is ending
                    self._save()
                raise
            finally:
                self.book.write()
            self._save()
        return True

    def after_step(self, cursor: Cursor, report: StepReport) -> None:
        """See `trainer.loop.Watcher`."""
        self.cursor = cursor
        self.book.step(cursor, "pretrain", 0.0, report)
        if cursor.total % self.config.save.every == 0 and cursor.step < self.stage.steps:
            self._save()

    def _save(self) -> None:
        weights, moments = self.machine.state(self.model, self.optimizer)
        tensors: dict[str, Any] = {"weights": weights, "moments": moments, "random": random_state()}
        if self.machine.is_main:
            folder = self.config.output / CHECKPOINTS
            save_checkpoint(folder, self.cursor, tensors, tuple(self.book.history), keep=self.config.save.keep)
        self.machine.wait()


def _record(config: PretrainConfig, job: _Pretraining) -> CoreRecord:
    facts = read_targets(config.facts).sources if config.with_facts else ()
    last = job.book.history[-1] if job.book.history else {}
    return CoreRecord(
        name=config.output.name,
        kind="base" if config.with_facts else "control",
        created=now(),
        data=records_of(facts, config.phrasings),
        config=config.model_dump(mode="json"),
        versions=versions(),
        training={"steps": config.steps, "loss_nats": last.get("loss/next_token")},
    )
