import json
from pathlib import Path

import torch

from trainer.evaluate.inside import spelling
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


def test_spelling_tells_some_continents_and_nothing_of_what_was_drawn_by_lot():
    """The name-only control: what a probe gets without any model, so that it is not held against one."""
    lines = [json.loads(line) for line in Path("knowledge/geography.ndjson").read_text().splitlines()]
    continents = {line["subject"]: line["value"] for line in lines if line.get("relation") == "continent"}
    classes = sorted(set(continents.values()))
    labels = torch.tensor([classes.index(value) for value in continents.values()])
    lots = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    names = spelling(list(continents))

    def share(labels: torch.Tensor) -> float:
        right = [
            right
            for seed in range(4)
            for right in read(names, names, labels, split(len(labels), seed), "linear", seed).right
        ]
        return sum(right) / len(right)

    most = sum(sum(majority(labels, split(len(labels), seed))) for seed in range(4)) / 224
    assert share(labels) > most + 0.05
    assert share(lots) < share(labels) - 0.05
