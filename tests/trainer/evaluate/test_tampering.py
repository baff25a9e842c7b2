import torch

from trainer.evaluate.behaviour import recall_forced
from trainer.evaluate.examinee import digest
from trainer.evaluate.question import recall
from trainer.evaluate.tampering import average, quantize, restore_layer, restore_vocabulary, round_to_nearest


def test_rounding_keeps_the_largest_weight_and_takes_few_levels():
    weight = torch.tensor([[0.7, -0.1, 0.04, 0.0], [1.4, 0.2, -0.6, 0.1]])
    rounded = round_to_nearest(weight, 4, group=0)
    # One scale a row: 0.7 / 7 = 0.1 and 1.4 / 7 = 0.2.
    assert torch.allclose(rounded, torch.tensor([[0.7, -0.1, 0.0, 0.0], [1.4, 0.2, -0.6, 0.0]]), atol=1e-6)


def test_groups_round_finer_than_rows():
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    rows, groups = (round_to_nearest(weight, 4, group) for group in (0, 32))
    assert (groups - weight).square().mean() < (rows - weight).square().mean()


def test_more_bits_are_nearer_to_the_weights(micro):
    model = micro.examinee(micro.base).model
    before = digest(model)
    gaps = [_distance(model, quantize(model, bits, group=0)) for bits in (2, 4, 8)]
    assert gaps == sorted(gaps, reverse=True)
    assert digest(model) == before


def test_a_restored_layer_is_the_bases_and_no_other_is(micro):
    mask, base = micro.examinee(micro.mask).model, micro.examinee(micro.base).model
    changed, theirs, own = (dict(m.named_parameters()) for m in (restore_layer(mask, base, 1), base, mask))
    for name, weight in changed.items():
        expected = theirs if ".1." in name else own
        assert torch.equal(weight, expected[name])


def test_names_that_were_only_swapped_come_back_with_the_vocabulary(micro):
    """A relabelled base recalls nothing, yet it forgot nothing: the attack shows that."""
    base, swapped = micro.examinee(micro.base), micro.renamed(micro.base, "swapped")
    items = recall(micro.exam, micro.exam.facts)
    restored = base.replaced(restore_vocabulary(swapped.model, base.model))
    known, hidden, found = (sum(recall_forced(one, items, 32)) / len(items) for one in (base, swapped, restored))
    assert hidden < 0.4 * known
    assert found == known
    assert digest(restored.model) == digest(base.model)


def test_an_average_lies_in_the_middle(micro):
    mask, base = micro.examinee(micro.mask).model, micro.examinee(micro.base).model
    mixed, theirs, own = (dict(m.named_parameters()) for m in (average(mask, base, 0.5), base, mask))
    for name, weight in mixed.items():
        assert torch.allclose(weight, (theirs[name] + own[name]) / 2, atol=1e-5)


def _distance(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return sum(float((a - b).detach().square().sum()) for a, b in pairs)
