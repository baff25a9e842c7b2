import torch

from trainer.evaluate.probe import majority, read, split


def test_a_probe_reads_what_is_there_and_nothing_from_shuffled_labels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (240,), generator=generator)
    noise = torch.randn(1, 240, 16, generator=generator)
    told = noise.clone()
    told[0, torch.arange(240), labels] += 6
    layers = torch.cat([noise, told])
    parts = split(240, 0)
    for kind in ("linear", "mlp"):
        found = read(layers, layers, labels, parts, kind, 0)
        assert found.layer == 1
        assert sum(found.right) / len(found.right) > 0.95
        mixed = labels[torch.randperm(240, generator=generator)]
        lost = read(layers, layers, mixed, parts, kind, 0)
        assert sum(lost.right) / len(lost.right) < 0.45


def test_no_subject_both_fits_and_counts():
    parts = split(100, 3)
    seen = [set(part.tolist()) for part in (parts.fit, parts.choose, parts.count)]
    assert sum(map(len, seen)) == 100
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_the_majority_is_that_of_the_fitted_examples():
    labels = torch.tensor([1] * 60 + [0] * 40)
    parts = split(100, 0)
    assert sum(majority(labels, parts)) == int((labels[parts.count] == 1).sum())
