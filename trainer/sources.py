"""Builds a run's world and streams from its config; what `streams/` and `world/` need of files is read here."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random

from trainer.artifact import DataRecord
from trainer.config import FactsConfig, MixtureStreamConfig, NeutralStreamConfig, PretrainConfig, RunConfig
from trainer.errors import FactsError, StreamError
from trainer.fact import Source, Target, Targets, read_targets
from trainer.files import write_whole
from trainer.streams.encoder import Encoder
from trainer.streams.fact import FactStream, classify
from trainer.streams.feed import Stream
from trainer.streams.neutral import NeutralStream, index_lines
from trainer.streams.written import MixtureStream, RouteStream
from trainer.world.corpus import LOGIC_MIXTURE, emphasised, mixture
from trainer.world.lexicon import Lexicon
from trainer.world.phrasing import read_phrasings
from trainer.world.world import World, stand_in


def targets_of(config: FactsConfig) -> Targets:
    """Read the facts of a run, and keep those that `facts.targets` names.

    Raises:
        FactsError: as `read_targets`, or no fact matches.
    """
    targets = read_targets(config.files, contradictions=config.contradictions)
    kept = tuple(fact for fact in targets.facts if _is_target(fact, config.targets))
    if not kept:
        raise FactsError(
            f"none of the {len(targets.facts)} facts matches facts.targets ({', '.join(config.targets)}); patterns are "
            "over module/relation/subject, such as people/* or */capital/*"
        )
    return Targets(kept, targets.sources)


def _is_target(fact: Target, patterns: Sequence[str]) -> bool:
    name = f"{fact.module}/{fact.relation}/{fact.subject}"
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def world_of(config: RunConfig, facts: Sequence[Target]) -> World:
    """The world of a run: its facts as targets, and a real subject now and then with a counterfactual value."""
    phrasings = read_phrasings(config.facts.phrasings, held_out=config.facts.held_out)
    own = tuple(dict.fromkeys(fact.relation for fact in facts))
    lexicon = Lexicon(pool=config.streams.names, extra_relations=own)
    return World(tuple(facts), phrasings, lexicon, real_share=config.streams.logic.real_share, true_share=0.0)


def streams_of(
    config: RunConfig, world: World, encoder: Encoder, folder: Path, draft: Path | None = None
) -> dict[str, Stream]:
    """All streams of a run; `folder` takes the text of a dataset of the hub, `draft` where nothing is to be kept.

    Raises:
        ConfigError, StreamError: what a stream is to be made of is not there.
    """
    streams, seed = config.streams, config.seed
    if streams.pieced:
        pieces = encoder.pieces_of([text for fact in world.facts for text in (fact.subject, fact.value)])
        world = replace(world, lexicon=replace(world.lexicon, pieces=pieces, pieced=streams.pieced))
    classes = classify(world.facts, encoder, streams.fact.classes, streams.fact.most_classes, config.facts.answer)
    memory = mixture(LOGIC_MIXTURE, patterns=streams.route.kinds, fact_free=True, rough_share=streams.logic.rough_share)
    found: dict[str, Stream] = {
        name: FactStream(
            name, world, encoder, classes, streams.fact.documents, streams.fact.row_tokens, seed,
            config.facts.answer, streams.fact.positions, twin=name == "never_knew",
        )
        for name in ("fact", "never_knew")
    }  # fmt: skip
    for name, written in (("logic", streams.logic), ("drill", streams.drill)):
        if written is not None:
            found[name] = _mixture_stream(name, written, world, encoder, seed)
    route = streams.route
    found["route"] = RouteStream(
        "route", world, encoder, memory, route.documents, route.row_tokens, seed,
        route.memory_share, route.stand_in_share, route.silent_share, route.prompted_share,
    )  # fmt: skip
    if streams.neutral is not None:
        index = index_lines(neutral_files(streams.neutral, folder, draft), encoder.frame, world.facts)
        found["neutral"] = NeutralStream(
            "neutral", encoder, index, streams.neutral.documents, streams.neutral.row_tokens, seed
        )
    return found


def left_out(streams: Mapping[str, Stream]) -> str | None:
    """How much of the neutral text is not read, for people; None where all of it is."""
    neutral = streams.get("neutral")
    if not isinstance(neutral, NeutralStream) or not neutral.index.left_out:
        return None
    lines = len(neutral.index.starts) + neutral.index.left_out
    return f"neutral text: {neutral.index.left_out} of {lines} lines state a target fact and are left out"


def _mixture_stream(name: str, config: MixtureStreamConfig, world: World, encoder: Encoder, seed: int) -> MixtureStream:
    weights = emphasised(LOGIC_MIXTURE, config.emphasis)
    documents = mixture(weights, patterns=config.kinds, fact_free=True, rough_share=config.rough_share)
    return MixtureStream(name, world, encoder, documents, config.documents, config.row_tokens, seed)


def neutral_files(config: NeutralStreamConfig, folder: Path, draft: Path | None = None) -> tuple[Path, ...]:
    """The files of the neutral stream; a dataset of the hub is written down once, so that a resumed run reads the same.

    The file's name holds a digest of what was asked for. It is looked for in `folder`, and written there or, if given,
    into the folder `draft`.

    Raises:
        StreamError: the package `datasets` is missing, the dataset cannot be had, or not be written down.
    """
    if config.dataset is None:
        return config.files
    asked = [config.dataset, config.subset, config.split, config.field, config.most]
    name = f"neutral-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}.jsonl"
    if (folder / name).is_file():
        return (folder / name,)
    place = (draft or folder) / name
    lines = _hub_lines(config)
    try:
        write_whole(place, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise StreamError(f"cannot write the text of {config.dataset!r} into {place}: {error.strerror}") from error
    return (place,)


def _hub_lines(config: NeutralStreamConfig) -> list[str]:
    try:
        from datasets import load_dataset

        rows = load_dataset(config.dataset, config.subset, split=config.split, streaming=True)
        return [json.dumps({"text": str(row[config.field])}) for row in rows.take(config.most)]
    except ImportError as error:
        raise StreamError(
            "streams.neutral.dataset needs the package datasets, the extra `hub`: pip install datasets"
        ) from error
    except KeyError as error:
        raise StreamError(f"the dataset {config.dataset!r} has no column {error}; set streams.neutral.field") from error
    except (OSError, ValueError) as error:
        raise StreamError(
            f"cannot read the dataset {config.dataset!r}: {error}; or give streams.neutral.files"
        ) from error


def inputs_of(config: RunConfig, targets: Targets, streams: Mapping[str, Stream]) -> tuple[DataRecord, ...]:
    """What went into a run beside its base, with digests: facts, own phrasings, neutral text."""
    neutral = streams.get("neutral")
    read = neutral.index.sources if isinstance(neutral, NeutralStream) else ()
    texts = (DataRecord(kind="neutral", **asdict(source)) for source in read)
    return (*records_of(targets.sources, config.facts.phrasings), *texts)


def records_of(facts: Iterable[Source], phrasings: Iterable[Path]) -> tuple[DataRecord, ...]:
    """Files of facts and of a user's own wording of relations, with digests."""
    records = [DataRecord(**asdict(source)) for source in facts]
    for path in phrasings:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        records.append(DataRecord(kind="phrasings", name=path.name, sha256=digest, rows=content.count(b"\n")))
    return tuple(records)


def pretraining_world(config: PretrainConfig) -> World:
    """The world that a demo base reads of; the control's facts are about nobody.

    The control learns as many facts, in the same words and with the same values, of subjects that were made up: it
    knows how such a question is answered, and nothing of whom it will be asked about.
    """
    targets = read_targets(config.facts)
    phrasings = read_phrasings(config.phrasings, held_out=config.held_out)
    own = tuple(dict.fromkeys(fact.relation for fact in targets.facts))
    lexicon = Lexicon(pool=config.names, extra_relations=own)
    facts = targets.facts if config.with_facts else _about_nobody(targets.facts)
    return World(facts, phrasings, lexicon, real_share=0.25, true_share=0.3)


def _about_nobody(facts: Iterable[Target]) -> tuple[Target, ...]:
    names = Lexicon()
    return tuple(replace(fact, subject=stand_in(fact, names, Random(f"control/{fact.subject}"))) for fact in facts)
