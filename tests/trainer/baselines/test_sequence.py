from dataclasses import replace

from tests.trainer.micro import NAMES
from trainer.base_model import load_base
from trainer.baselines.method import Workshop
from trainer.baselines.sequence import SequenceStream, draw_sequences, memorize, recited, tokens_recalled
from trainer.config import BaseConfig, ComputeConfig
from trainer.evaluate.examinee import Examinee
from trainer.evaluate.outcome import Role
from trainer.machine import Machine
from trainer.reader import Reader
from trainer.world.lexicon import Lexicon


def test_strings_are_drawn_once_and_none_is_both_shown_and_hidden():
    lexicon = Lexicon(pool=NAMES)
    strings, again = draw_sequences(8, lexicon, 3), draw_sequences(8, lexicon, 3)
    assert strings == again
    assert len(strings.shown) == len(strings.hidden) == 4
    assert len(strings.fresh) == 8
    assert not set(strings.shown) & set(strings.hidden)
    assert not set(strings.memorized) & set(strings.fresh)


def test_what_is_learned_by_heart_is_recited_and_fresh_strings_are_not(micro):
    base = load_base(BaseConfig(model=str(micro.base)))
    strings = draw_sequences(4, Lexicon(pool=NAMES), 0)
    stream = SequenceStream("fact", strings.memorized, base.encoder, 4, 256, 0)
    logic = replace(stream, name="logic")
    shop = Workshop(
        base.model, Reader(base.model), {"fact": stream, "logic": logic}, Machine(ComputeConfig(device="cpu"))
    )
    before = Examinee(Role.CORE, "before", base.model, base.tokenizer)
    after = replace(before, model=memorize(shop, steps=150, rate=3e-3))
    assert not any(recited(before, strings.memorized))
    assert all(recited(after, strings.memorized))
    assert not any(recited(after, strings.fresh))
    assert sum(tokens_recalled(after, strings.fresh)) / len(strings.fresh) < 0.6
