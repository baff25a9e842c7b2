"""Streams: each batch a pure function of its number, masked as the protocol says, cut without a change."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from dataclasses import replace
from math import log
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from knowledge_store.protocol import Tag
from tests.trainer.conftest import make_config
from trainer.base_model import Base, load_base
from trainer.chat import ChatFrame
from trainer.config import BaseConfig, LossesConfig, PracticeConfig, RunConfig
from trainer.errors import FeedError, StreamError
from trainer.fact import Target
from trainer.objective import Metabolism
from trainer.reader import Reader, to_places
from trainer.sources import streams_of, targets_of, world_of
from trainer.streams.batch import Batch, Example, pack
from trainer.streams.fact import FactStream, classify
from trainer.streams.feed import Feed, Stream
from trainer.streams.neutral import NeutralStream, index_lines, parse_line
from trainer.streams.written import MixtureStream, RouteStream
from trainer.world.lexicon import Lexicon

NAMES = ("fact", "never_knew", "logic", "route")


@pytest.fixture(scope="module")
def base(raw_base: Path) -> Base:
    return load_base(BaseConfig(model=str(raw_base / "base")))


@pytest.fixture
def config(raw_run: dict[str, object]) -> RunConfig:
    return make_config(raw_run)


@pytest.fixture
def streams(config: RunConfig, base: Base, tmp_path: Path) -> dict[str, Stream]:
    world = world_of(config, targets_of(config.facts).facts)
    return streams_of(config, world, base.encoder, tmp_path)


def same(one: Batch, two: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for name in Batch.__slots__
        if name.endswith(("T", "N", "M"))
    )


def texts(batch: Batch, base: Base) -> list[str]:
    """The documents of a batch, cut where positions start anew."""
    found = []
    for ids, positions in zip(batch.ids_BT, batch.positions_BT, strict=True):
        starts = [at for at, position in enumerate(positions) if position == 0]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            text = base.tokenizer.decode([token for token in ids[start:end] if token != base.tokenizer.pad_token_id])
            if text:
                found.append(str(text))
    return found


def test_packing_keeps_order_and_places() -> None:
    batch = pack(
        [Example([1, 2, 3], [1], [3]), Example([4, 5], [0], [5], [True], [1], 7), Example([6] * 7, [5], [6])],
        8, pad_id=0, most_tokens=100,
    )  # fmt: skip
    assert batch.ids_BT.tolist() == [[1, 2, 3, 4, 5, 0, 0, 0], [6] * 7 + [0]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 0]]
    assert batch.rows_N.tolist() == [0, 0, 1]
    assert batch.columns_N.tolist() == [1, 3, 5]
    assert batch.labels_N.tolist() == [3, 5, 6]
    assert (batch.rows_M.tolist(), batch.columns_M.tolist(), batch.classes_M.tolist()) == ([0], [4], [7])
    assert batch.tokens == 12


def test_a_document_longer_than_a_row_gets_its_own_and_one_too_long_for_the_model_is_refused() -> None:
    assert pack([Example([1] * 30, [0], [1])], 16, pad_id=0, most_tokens=64).ids_BT.shape == (1, 32)
    with pytest.raises(StreamError, match="30 tokens does not fit"):
        pack([Example([1] * 30, [0], [1])], 16, pad_id=0, most_tokens=20)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_function_of_its_number(streams: dict[str, Stream], name: str) -> None:
    assert same(streams[name].batch(3), streams[name].batch(3))
    assert not same(streams[name].batch(3), streams[name].batch(4))


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_batch_are_the_batch(streams: dict[str, Stream], base: Base, name: str) -> None:
    whole = Counter(texts(streams[name].batch(2), base))
    parts = [streams[name].batch(2, share, 2) for share in range(2)]
    assert Counter(text for part in parts for text in texts(part, base)) == whole


def test_a_fact_is_asked_with_its_value_and_its_twin_with_nobody(streams: dict[str, Stream], base: Base) -> None:
    fact, never = streams["fact"], streams["never_knew"]
    assert isinstance(fact, FactStream)
    known = set(fact.world.by_subject)
    for question, twin in zip(texts(fact.batch(0), base), texts(never.batch(0), base), strict=True):
        subject = next(name for name in known if name in question)
        assert question.split("assistant\n")[1] in {fact.value for fact in fact.world.by_subject[subject]}
        assert not any(name in twin for name in known)
        assert twin.endswith("assistant\n")
    assert fact.batch(0).first_N.sum() == len(never.batch(0).rows_N) == 6


def test_the_fact_stream_never_words_a_question_as_held_out(streams: dict[str, Stream], base: Base) -> None:
    fact = streams["fact"]
    assert isinstance(fact, FactStream)
    held = {
        text.replace("{subject}", one.subject)
        for one in fact.world.facts
        for text in fact.world.phrasings.questions(one.relation)
        if fact.world.phrasings.is_held_out(*one.key, text)
    }
    asked = {text.split("user\n")[1].split("<|im_end|>")[0] for n in range(30) for text in texts(fact.batch(n), base)}
    assert len(asked) > 100
    assert not asked & held


def test_each_epoch_of_the_fact_stream_asks_every_fact_once(streams: dict[str, Stream]) -> None:
    fact = streams["fact"]
    assert isinstance(fact, FactStream)
    seen = [fact._draw(number, place)[0] for number in range(50) for place in range(fact.documents)]
    assert sorted(seen[:200]) == list(range(200))


def test_injected_text_carries_no_loss(streams: dict[str, Stream], base: Base) -> None:
    route = streams["route"]
    assert isinstance(route, RouteStream)
    batch = route.batch(0)
    labels = Counter(batch.labels_N.tolist())
    inside = {base.tokenizer.convert_tokens_to_ids(str(tag)) for tag in (Tag.FACT, Tag.END_FACT)}
    assert inside <= set(batch.ids_BT.ravel().tolist())
    assert not inside & set(labels)
    assert labels[base.tokenizer.convert_tokens_to_ids(str(Tag.END_LOOKUP))] >= route.documents


def test_no_true_value_stands_in_logic_or_route(streams: dict[str, Stream]) -> None:
    for name in ("logic", "route"):
        stream = streams[name]
        assert isinstance(stream, MixtureStream | RouteStream)
        for number in range(60):
            for place in range(stream.documents):
                assert not any(stream.world.is_true(claim) for claim in stream.draw(number, place).claims)


def test_the_route_refuses_the_true_value_of_a_relation_that_has_just_one(
    raw_run: dict[str, object], base: Base, tmp_path: Path
) -> None:
    config = make_config(raw_run, streams={**raw_run["streams"], "names": 1})  # type: ignore[dict-item]
    only = Lexicon(pool=1).name(Random(0))
    facts = [Target(f"Ort{number}", "plant", only, "m") for number in range(20)]
    route = streams_of(config, world_of(config, facts), base.encoder, tmp_path)["route"]
    assert isinstance(route, RouteStream)
    alone = replace(route, memory_share=0.0, stand_in_share=0.0)
    claims = [claim for number in range(500) for claim in alone.draw(number, 0).claims]
    assert {claim.subject for claim in claims} == set(alone.world.by_subject)
    assert only in {alone.world.lexicon.value(Random(number)) for number in range(20)}, "it is what may be drawn"
    assert not any(claim.value == only for claim in claims)


def test_route_questions_come_with_the_system_prompt_and_without(streams: dict[str, Stream]) -> None:
    route = streams["route"]
    assert isinstance(route, RouteStream)
    bare, mixed, prompted = (
        [replace(route, prompted_share=share).draw(number, place) for number in range(50) for place in range(4)]
        for share in (0.0, 0.5, 1.0)
    )
    assert not any(document.tools for document in bare)
    assert all(document.tools for document in prompted)
    assert [replace(document, tools=True) for document in bare] == prompted  # the same questions, either way
    assert 0.35 < sum(document.tools for document in mixed) / len(mixed) < 0.65
    assert all(document.exchanges[0].turn.steps for document in mixed)


def test_classes_know_their_chance(base: Base) -> None:
    facts = [Target(f"s{number}", "r", value, "m") for number, value in enumerate("aaab")]
    classes = classify(facts, base.encoder, "value", 10, "{value}")
    assert classes.of_fact == (0, 0, 0, 1)
    assert classes.chance_nats == pytest.approx((log(4 / 3), log(4)))


def test_a_million_values_share_hashed_classes(base: Base) -> None:
    facts = [Target(f"s{number}", "r", f"v{number}", "m") for number in range(5000)]
    classes = classify(facts, base.encoder, "value", 64, "{value}")
    assert len(classes.chance_nats) <= 64
    assert max(classes.of_fact) < 64


def test_one_fact_and_values_of_one_token_and_of_sixty_all_make_batches(
    raw_run: dict[str, object], base: Base, tmp_path: Path
) -> None:
    config = make_config(raw_run)
    for value in ("x", "word " * 30):
        world = world_of(config, [Target("Ada", "motto", value.strip(), "m")])
        batch = streams_of(config, world, base.encoder, tmp_path)["fact"].batch(0)
        assert batch.examples == 6
        assert len(batch.rows_N) >= 6


def test_pieces_are_the_letters_of_the_vocabulary_and_half_of_them_spell_the_facts(base: Base) -> None:
    facts = ["Ada Lovelace", "1815"]
    pieces = base.encoder.pieces_of(facts)
    own = {text for text in map(base.tokenizer.decode, base.encoder.encode(facts)[0]) if text.isalpha()}
    assert all(piece.isalpha() for piece in pieces)
    assert own
    spelling = sum(piece in own for piece in pieces)
    assert 0.45 < spelling / len(pieces) < 0.6
    assert len(set(pieces)) > 10 * len(own)


def test_pieced_names_enter_the_streams(raw_run: dict[str, object], base: Base, tmp_path: Path) -> None:
    raw_run["streams"] = {**raw_run["streams"], "pieced": 1.0, "names": 0}  # type: ignore[dict-item]
    config = make_config(raw_run)
    logic = streams_of(config, world_of(config, targets_of(config.facts).facts), base.encoder, tmp_path)["logic"]
    assert isinstance(logic, MixtureStream)
    assert set(logic.world.lexicon.name(Random(1), 1)) <= set("".join(logic.world.lexicon.pieces))
    assert logic.world.lexicon.pieced == 1.0
    assert logic.batch(0).examples == logic.documents


def test_many_facts_cost_a_batch_nothing(raw_run: dict[str, object], base: Base, tmp_path: Path) -> None:
    facts = [Target(f"Name{number}", "metal", f"value {number % 977}", "m") for number in range(200_000)]
    config = make_config(raw_run)
    fact = streams_of(config, world_of(config, facts), base.encoder, tmp_path)["fact"]
    fact.batch(0)  # shuffles the first epoch
    started = time.process_time()
    fact.batch(1)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_feed_hands_out_the_same_batches_with_and_without_workers(streams: dict[str, Stream], workers: int) -> None:
    with Feed(streams, workers=workers, prefetch=2) as feed:
        handed = list(feed.steps(NAMES, 5, 8))
    assert len(handed) == 3
    for number, batches in enumerate(handed, start=5):
        assert all(same(batches[name][0], streams[name].batch(number)) for name in NAMES)


def test_a_worker_prepares_while_the_loop_computes(streams: dict[str, Stream]) -> None:
    with Feed(streams, workers=1, prefetch=4) as feed:
        steps = feed.steps(NAMES, 0, 4)
        next(steps)
        time.sleep(1.0)
        before = feed.waited_s
        for _ in range(3):
            next(steps)
        assert feed.waited_s - before < 0.2


def test_a_terminals_ctrl_c_ends_no_worker_and_what_ends_one_is_said(streams: dict[str, Stream]) -> None:
    with Feed(streams, workers=1, prefetch=1) as feed:
        steps = iter(feed.steps(NAMES, 0, 4))
        asked = feed.submit(NAMES, 9)
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)  # while it starts
        assert asked is not None
        assert same(asked[NAMES[0]].result()[0], streams[NAMES[0]].batch(9))
        os.kill(worker.pid, signal.SIGINT)
        assert same(next(steps)[NAMES[0]][0], streams[NAMES[0]].batch(0))
        worker.kill()
        worker.join()
        with pytest.raises(FeedError, match="ended from outside"):
            list(steps)


def test_a_drill_is_of_its_kinds_alone_and_its_losses_are_means_of_their_own(
    raw_run: dict[str, object], base: Base, tmp_path: Path
) -> None:
    drill = {"kinds": ["logic/problem_direct"], "documents": 5, "row_tokens": 96, "rough_share": 0.0}
    config = make_config(raw_run, streams={**raw_run["streams"], "drill": drill})
    streams = streams_of(config, world_of(config, targets_of(config.facts).facts), base.encoder, tmp_path)
    drawn = streams["drill"]
    assert isinstance(drawn, MixtureStream)
    assert {drawn.draw(number, 0).kind for number in range(20)} == {"problem_direct"}
    assert same(drawn.batch(3), drawn.batch(3))

    reader = Reader(base.model).eval()
    losses = LossesConfig(practice=PracticeConfig(weight=0.5, streams=("logic", "drill")))
    objective = Metabolism(losses, reader, None)
    assert objective.passes == ("logic", "drill")
    batches = {name: streams[name].batch(0) for name in objective.passes}
    counts = objective.count(batches)
    places = {name: to_places(batch, torch.device("cpu")) for name, batch in batches.items()}
    for name, at in places.items():
        (term,) = objective.compute(reader, name, places, counts, 0)
        with torch.no_grad():
            expected = cross_entropy(reader(at)[0], at.labels_N)
        assert (term.name, term.weight) == (f"practice/{name}", 0.5)
        assert float(term.loss.sum.detach()) / counts[term.name] == pytest.approx(float(expected), rel=1e-5)


FRAME = ChatFrame("<u>", "<t>", "<a>", "<e>", "<n>")


def test_neutral_lines_are_text_or_messages() -> None:
    (text,) = parse_line(b'{"text": "just text"}', FRAME, "line")
    assert (text.text, text.trained) == ("just text", True)
    segments = parse_line(
        b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}', FRAME, "line"
    )
    assert [(segment.text, segment.trained) for segment in segments] == [
        ("<u>", False), ("q", False), ("<a>", False), ("a", True), ("<e>", True),
    ]  # fmt: skip


@pytest.mark.parametrize("line", [b"{", b"{}", b'{"messages": []}', b'{"messages": [1]}'])
def test_a_line_that_is_neither_is_named(line: bytes) -> None:
    with pytest.raises(StreamError, match=r"f\.jsonl at byte 7"):
        parse_line(line, FRAME, "f.jsonl at byte 7")


def test_neutral_text_is_drawn_by_number_and_cut_to_a_row(base: Base, tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text(
        "".join(f'{{"text": "{"word " * (number * 9)}{number}"}}\n' for number in range(1, 20)), encoding="utf-8"
    )
    stream = NeutralStream("neutral", base.encoder, index_lines([path], FRAME), 8, 64, 0)
    assert same(stream.batch(1), stream.batch(1))
    assert stream.batch(1).ids_BT.shape[1] <= 64
    with pytest.raises(StreamError, match="empty"):
        index_lines([], FRAME)
    path.write_text('{"text": "fine"}\n\n{"txet": "?"}\n', encoding="utf-8")
    with pytest.raises(StreamError, match=r"n\.jsonl at byte 18: not a JSON object with text or messages"):
        index_lines([path], FRAME)
    with pytest.raises(StreamError, match="cannot read"):
        index_lines([tmp_path / "none.jsonl"], FRAME)
