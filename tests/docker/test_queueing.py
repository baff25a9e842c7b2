"""The queueing network gives the numbers that can be worked out by hand."""

import pytest

from benchmarks.queueing import Station, batching, solve, workers


@pytest.mark.parametrize("clients", [1, 5, 50, 500])
def test_equal_stations_give_the_closed_form(clients: int) -> None:
    # Balanced network of K = 3 single servers, 0.1 s each: X = N / (D (N + K - 1)).
    stations = [Station(name, (10.0,)) for name in "abc"]
    assert solve(stations, clients).answers_per_s == pytest.approx(clients / (0.1 * (clients + 2)))


def test_one_station_of_two_workers_is_full_with_two_clients() -> None:
    assert solve([workers("service", 2, 0.5)], 1).answers_per_s == pytest.approx(2.0)
    assert solve([workers("service", 2, 0.5)], 2).answers_per_s == pytest.approx(4.0)
    assert solve([workers("service", 2, 0.5)], 9).answers_per_s == pytest.approx(4.0)


def test_a_worker_and_an_engine_worked_out_by_hand() -> None:
    # N = 2, rates 4/s and 1/s. Weights of (2,0), (1,1), (0,2): 1/16, 1/4, 1; G(2) = 21/16, G(1) = 1/4 + 1 = 5/4.
    found = solve([Station("fast", (4.0,)), Station("slow", (1.0,))], 2)
    assert found.answers_per_s == pytest.approx((5 / 4) / (21 / 16))
    assert found.bottleneck == "slow"


def test_at_saturation_the_slowest_station_sets_the_pace_without_a_rounding_error() -> None:
    engine = batching("engine", 4, [(1, 80.0), (8, 300.0), (32, 450.0)])
    found = solve([workers("service", 8, 0.02), engine, workers("database", 4, 0.0002)], 2048)
    assert found.answers_per_s == pytest.approx(400.0)
    assert found.bottleneck == "service"
    assert found.answer_s == pytest.approx(2048 / 400)


def test_engines_share_the_answers_and_a_curve_is_read_between_its_points() -> None:
    station = batching("engine", 2, [(1, 10.0), (3, 30.0)])
    assert station.rate(2) == pytest.approx(20.0)  # one each
    assert station.rate(4) == pytest.approx(40.0)  # two each, halfway between the points
    assert station.rate(100) == pytest.approx(60.0)
