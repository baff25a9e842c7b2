"""Intervals and paired tests. Pure functions of numbers; no model, no file.

Source: Wilson, JASA 22 (1927), for a share; Newcombe, Statistics in Medicine 17 (1998) 873 and 2635, for the difference
of two shares, apart and paired; McNemar's test in its exact form; the percentile bootstrap for everything else. Items
that belong together (one subject read by several probes) are resampled together, or the interval would be too narrow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]

Z_95 = 1.959963984540054
_BOOTSTRAPS = 2000
_PERMUTATIONS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """First minus second, its 95 % interval, and the p-value of "no difference" by the named test."""

    value: float
    low: float
    high: float
    p_value: float
    test: str


def is_share(items: Sequence[float]) -> bool:
    """Whether every item is 0 or 1."""
    return all(item in (0.0, 1.0) for item in items)


def interval(items: Sequence[float], seed: int = 0, *, groups: Sequence[int] = ()) -> Interval:
    """The mean of the items with its interval: Wilson's for shares, a bootstrap for anything else.

    Where `groups` says which items belong together, whole groups are drawn.
    """
    if groups and len(set(items)) > 1:
        values = np.asarray(items, dtype=float)
        return Interval(float(values.mean()), *_bootstrap_groups(values, groups, seed))
    if is_share(items):
        alike = len(set(groups)) if groups else len(items)
        return wilson(round(sum(items) / len(items) * alike), alike)
    values = np.asarray(items, dtype=float)
    low, high = _bootstrap(values, seed)
    return Interval(float(values.mean()), low, high)


def wilson(hits: int, n: int) -> Interval:
    """Wilson's score interval of `hits` in `n`."""
    share = hits / n
    scale = 1 + Z_95**2 / n
    centre = (share + Z_95**2 / (2 * n)) / scale
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n)) / scale
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def difference(
    first: Sequence[float],
    second: Sequence[float],
    seed: int = 0,
    *,
    paired: bool = True,
    groups: Sequence[int] = (),
) -> Difference:
    """First minus second.

    Item by item where `paired`: two of a length, the same questions in the same order. Shares then get Newcombe's
    paired interval and McNemar's exact test; anything else a paired bootstrap and a sign-flip test. Unpaired shares get
    Newcombe's hybrid interval, unpaired means a bootstrap; both a permutation test. Where `groups` says which items of
    both belong together, whole groups are drawn and change their signs.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if groups and (a != b).any():
        return _paired_groups(a - b, groups, seed)
    shares = is_share(first) and is_share(second)
    if paired and len(a) == len(b):
        return _paired_shares(a, b) if shares else _paired_means(a, b, seed)
    return _apart(a, b, seed, shares=shares)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of the discordant pairs."""
    n = only_first + only_second
    return float(binomtest(only_first, n, 0.5).pvalue) if n else 1.0


def _paired_shares(a: NDArray[np.float64], b: NDArray[np.float64]) -> Difference:
    n = len(a)
    both, only_a = int((a * b).sum()), int((a * (1 - b)).sum())
    only_b = int(((1 - a) * b).sum())
    neither = n - both - only_a - only_b
    one, two = wilson(both + only_a, n), wilson(both + only_b, n)
    margin = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    phi = 0.0
    if margin:
        cross = both * neither - only_a * only_b
        phi = (max(cross - n / 2, 0) if cross > 0 else cross) / math.sqrt(margin)
    value = one.value - two.value
    below = (one.value - one.low, two.high - two.value)
    above = (one.high - one.value, two.value - two.low)
    low = value - math.sqrt(max(0.0, below[0] ** 2 - 2 * phi * below[0] * below[1] + below[1] ** 2))
    high = value + math.sqrt(max(0.0, above[0] ** 2 - 2 * phi * above[0] * above[1] + above[1] ** 2))
    return Difference(value, max(-1.0, low), min(1.0, high), mcnemar(only_a, only_b), "McNemar, exact")


def _paired_means(a: NDArray[np.float64], b: NDArray[np.float64], seed: int) -> Difference:
    gaps = a - b
    low, high = _bootstrap(gaps, seed)
    rng = np.random.default_rng(seed)
    signs = rng.choice((-1.0, 1.0), size=(_PERMUTATIONS, len(gaps)))
    extreme = np.abs((signs * gaps).mean(axis=1)) >= abs(gaps.mean()) - 1e-12
    return Difference(float(gaps.mean()), low, high, float((extreme.sum() + 1) / (_PERMUTATIONS + 1)), "sign flips")


def _paired_groups(gaps: NDArray[np.float64], groups: Sequence[int], seed: int) -> Difference:
    low, high = _bootstrap_groups(gaps, groups, seed)
    sums = _by_group(gaps, groups)[0]
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(_PERMUTATIONS, len(sums)))
    extreme = np.abs((signs * sums).sum(axis=1)) >= abs(gaps.sum()) - 1e-9
    p_value = float((extreme.sum() + 1) / (_PERMUTATIONS + 1))
    return Difference(float(gaps.mean()), low, high, p_value, "sign flips by group")


def _by_group(values: NDArray[np.float64], groups: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum and the number of the values of each group."""
    _, places = np.unique(np.asarray(groups), return_inverse=True)
    return np.bincount(places, weights=values).astype(np.float64), np.bincount(places).astype(np.float64)


def _bootstrap_groups(values: NDArray[np.float64], groups: Sequence[int], seed: int) -> tuple[float, float]:
    sums, sizes = _by_group(values, groups)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(_BOOTSTRAPS, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def _apart(a: NDArray[np.float64], b: NDArray[np.float64], seed: int, *, shares: bool) -> Difference:
    value = float(a.mean() - b.mean())
    if shares:
        one, two = wilson(int(a.sum()), len(a)), wilson(int(b.sum()), len(b))
        low = value - math.hypot(one.value - one.low, two.high - two.value)
        high = value + math.hypot(one.high - one.value, two.value - two.low)
    else:
        rng = np.random.default_rng(seed)
        gaps = _resample(a, rng) - _resample(b, rng)
        low, high = (float(bound) for bound in np.quantile(gaps, (0.025, 0.975)))
    rng = np.random.default_rng(seed + 1)
    pool = np.concatenate([a, b])
    extreme = 0
    for _ in range(_PERMUTATIONS):
        mixed = rng.permutation(pool)
        extreme += abs(mixed[: len(a)].mean() - mixed[len(a) :].mean()) >= abs(value) - 1e-12
    return Difference(
        value, max(low, -1.0) if shares else low, high, (extreme + 1) / (_PERMUTATIONS + 1), "permutation"
    )


def _bootstrap(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    means = _resample(values, np.random.default_rng(seed))
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _resample(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Bootstrap means, drawn in slabs so that a long list needs no matrix of all draws."""
    slab = max(1, 2_000_000 // max(1, len(values)))
    means = [
        values[rng.integers(0, len(values), size=(min(slab, _BOOTSTRAPS - start), len(values)))].mean(axis=1)
        for start in range(0, _BOOTSTRAPS, slab)
    ]
    return np.concatenate(means)
