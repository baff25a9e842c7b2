import pytest
import torch

from trainer.evaluate.behaviour import rank
from trainer.evaluate.generate import DIRECT, Decoding, generate
from trainer.evaluate.question import is_right, names
from trainer.evaluate.relearning import half_recovery
from trainer.evaluate.score import Score, score


def test_extraction_strength_is_the_share_that_follows_from_what_stands_before():
    assert Score((0.0,) * 4, (True,) * 4).extraction == 1
    assert Score((0.0,) * 4, (True, False, True, True)).extraction == 0.5
    assert Score((0.0,) * 4, (True, True, True, False)).extraction == 0


def test_a_tie_counts_against_the_right_value():
    right, other = Score((-1.0, -1.0), (True, True)), Score((-1.0,), (True,))
    assert rank([right, other]) == 2
    assert rank([right, Score((-2.0,), (False,))]) == 1


def test_an_answer_is_right_as_a_whole_or_as_words_within():
    assert is_right("Paris", ["Paris"])
    assert is_right("<think>\nx\n</think>\nparis.", ["Paris"])
    assert is_right("It is Paris, of course", ["Paris"])
    assert not is_right("Parisian", ["Paris"])
    assert not is_right("He is the one", ["He"])
    assert is_right("He", ["He"])


def test_a_value_stands_in_a_text_only_as_words_of_its_own():
    assert names("the year 1990 it was", "1990")
    assert not names("the year 19901", "1990")


def test_half_recovery_lies_between_the_checkpoints_that_pass_it():
    # Half of 0.8 is 0.4: a quarter of the way from 0.3 at step 20 to 0.7 at step 40.
    assert half_recovery([0, 20, 40], [0.0, 0.3, 0.7], 0.8) == pytest.approx(25)
    assert half_recovery([0, 20, 40], [0.0, 0.1, 0.2], 0.8) == 40
    assert half_recovery([0, 20, 40], [0.5, 0.6, 0.7], 0.8) == 0


def test_scores_do_not_depend_on_the_batch(micro):
    examinee = micro.examinee(micro.base)
    pairs = [(examinee.encode(f"word {'and word ' * n}"), examinee.encode("iron and zinc")) for n in range(5)]
    together, alone = score(examinee, pairs, batch=5), score(examinee, pairs, batch=1)
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert one.first == other.first


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_a_prompt_that_is_shared_is_scored_as_if_it_stood_alone(micro, batch):
    examinee = micro.examinee(micro.base)
    rests = [examinee.encode(text) for text in (" iron and zinc", " tin", " iron", " the metal of the river")]
    rests.append(rests[0][-1:])  # one token needs no second pass
    pairs = [
        (examinee.encode(f"The metal {'of the ' * n}"), rest)
        for rest in rests
        for n in range(4)
        if rest is rests[0] or n  # the first prompt has one continuation only
    ]
    together = score(examinee, pairs, batch)
    for pair, one in zip(pairs, together, strict=True):
        (alone,) = score(examinee, [pair])
        assert one.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert one.first == alone.first


def test_a_score_is_what_the_model_itself_gives(micro):
    examinee = micro.examinee(micro.base)
    prompt, rest = examinee.encode("The metal of"), examinee.encode(" iron")
    (one,) = score(examinee, [(prompt, rest)])
    with torch.no_grad():
        logits = examinee.model(torch.tensor([[*prompt, *rest]])).logits[0].log_softmax(-1)
    wanted = sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(rest))
    assert one.total == pytest.approx(wanted, abs=1e-4)


def test_banned_tags_are_never_sampled_and_samples_differ(micro):
    examinee = micro.examinee(micro.base)
    prompts = [examinee.encode(examinee.render(item.prompt)) for item in _some(micro)]
    drawn = generate(examinee, prompts, Decoding(6, banned=DIRECT, samples=4, temperature=2.0, seed=1))
    banned = {examinee.tag_ids[tag] for tag in DIRECT}
    assert all(not banned & set(ids) for samples in drawn for ids in samples)
    assert any(len({tuple(ids) for ids in samples}) > 1 for samples in drawn)
    again = generate(examinee, prompts, Decoding(6, banned=DIRECT, samples=4, temperature=2.0, seed=1))
    assert again == drawn


def _some(micro):
    from trainer.evaluate.question import recall

    return recall(micro.exam, micro.exam.sample(4))
