"""A closed queueing network, solved exactly: what a fixed number of clients gets out of stations that they queue at.

Pure functions of values. Called by ``scaling.py``, which measures what the stations can do.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Station:
    """A place where every answer needs work done. `rates[n - 1]` is how many answers a second it serves with n there.

    Beyond the last measured rate the station is as fast as at that one: it is full.
    """

    name: str
    rates: tuple[float, ...]

    def rate(self, present: int) -> float:
        """How many answers a second it serves with `present` of them there."""
        return self.rates[min(present, len(self.rates)) - 1]


@dataclass(frozen=True, slots=True)
class Solution:
    """What comes of it: answers a second, seconds an answer, and for each station the share of its top rate in use."""

    answers_per_s: float
    answer_s: float
    used: dict[str, float]

    @property
    def bottleneck(self) -> str:
        """The station that is nearest to its top rate."""
        return max(self.used, key=lambda name: self.used[name])


def workers(name: str, count: int, seconds: float) -> Station:
    """`count` equal workers, each of which takes `seconds` an answer and one answer at a time."""
    return Station(name, tuple(busy / seconds for busy in range(1, count + 1)))


def batching(name: str, count: int, curve: Sequence[tuple[int, float]]) -> Station:
    """`count` equal engines that serve several answers at once, spread evenly over them.

    `curve` has measured points of one engine, (answers there, answers a second), rising in the first; between them it
    is drawn straight.
    """
    most = curve[-1][0] * count
    return Station(name, tuple(count * _read(curve, present / count) for present in range(1, most + 1)))


def _read(curve: Sequence[tuple[int, float]], present: float) -> float:
    if present <= curve[0][0]:
        return curve[0][1] * present / curve[0][0]
    for (left, low), (right, high) in itertools.pairwise(curve):
        if present <= right:
            return low + (high - low) * (present - left) / (right - left)
    return curve[-1][1]


def solve(stations: Sequence[Station], clients: int) -> Solution:
    """Solve for `clients` that ask again as soon as they are answered.

    By convolution, whose terms are all positive: mean value analysis with load-dependent stations loses its digits
    near saturation. Exact for exponential service times, and for any others where a station shares itself out evenly,
    as an event loop and a batching engine nearly do.
    Source: J. Buzen, "Computational algorithms for closed queueing networks with exponential servers", CACM 16 (1973).
    """
    scale = min(max(station.rates) for station in stations)
    weights = np.eye(1, clients + 1)[0]
    for station in stations:
        steps = [scale / station.rate(present) for present in range(1, clients + 1)]
        weights = np.convolve(weights, np.cumprod([1.0, *steps]))[: clients + 1]
    throughput = float(scale * weights[clients - 1] / weights[clients])
    used = {station.name: throughput / max(station.rates) for station in stations}
    return Solution(throughput, clients / throughput, used)
