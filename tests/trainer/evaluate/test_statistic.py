import pytest

from trainer.evaluate.statistic import difference, interval, mcnemar, wilson


def test_wilson_gives_newcombes_published_interval():
    # Newcombe 1998, table I: 81 of 263 by the score method is .2553 to .3662.
    bounds = wilson(81, 263)
    assert bounds.value == pytest.approx(0.3080, abs=1e-4)
    assert (bounds.low, bounds.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_no_hit_in_five_hundred_still_has_an_upper_bound():
    bounds = wilson(0, 500)
    assert bounds.low == 0
    assert bounds.high == pytest.approx(0.00762, abs=1e-4)


def test_shares_apart_give_newcombes_published_interval():
    # Newcombe 1998, paper 873, example (a): 56/70 against 48/80, method 10: .0524 to .3339.
    first, second = [1.0] * 56 + [0.0] * 14, [1.0] * 48 + [0.0] * 32
    gap = difference(first, second, paired=False)
    assert gap.value == pytest.approx(0.2)
    assert (gap.low, gap.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_a_paired_difference_is_narrower_than_the_same_shares_apart():
    first = [1.0] * 60 + [0.0] * 40
    second = [1.0] * 55 + [0.0] * 45
    paired, apart = difference(first, second), difference(first, second, paired=False)
    assert paired.value == apart.value == pytest.approx(0.05)
    assert paired.high - paired.low < (apart.high - apart.low) / 2
    assert paired.low < 0.05 < paired.high


def test_two_that_agree_on_every_item_differ_by_nothing():
    gap = difference([1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0])
    assert gap.value == 0
    assert gap.p_value == 1
    assert gap.low < 0 < gap.high


def test_mcnemar_counts_only_the_discordant_pairs():
    # One against nine: 2 * (C(10,0) + C(10,1)) / 2^10 = 22 / 1024.
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(0, 0) == 1


def test_means_get_a_bootstrap_interval_around_them():
    items = [float(number) for number in range(100)]
    bounds = interval(items)
    assert bounds.value == pytest.approx(49.5)
    # The standard error is 29.01 / 10 = 2.9, so the interval is about 5.7 on each side.
    assert bounds.low == pytest.approx(49.5 - 5.7, abs=0.8)
    assert bounds.high == pytest.approx(49.5 + 5.7, abs=0.8)


def test_a_constant_gap_between_paired_means_is_found():
    first = [float(number) + 1 for number in range(50)]
    gap = difference(first, [float(number) for number in range(50)])
    assert (gap.value, gap.low, gap.high) == pytest.approx((1.0, 1.0, 1.0))
    assert gap.p_value < 0.01


def test_a_subject_that_is_counted_three_times_is_no_more_than_one():
    """Each of 40 subjects stands there three times; Wilson on 120 would be too sure by a factor of about sqrt(3)."""
    once = [1.0] * 10 + [0.0] * 30
    thrice, groups = once * 3, list(range(40)) * 3
    sure, honest, single = interval(thrice), interval(thrice, groups=groups), interval(once)
    assert honest.value == single.value == 0.25
    assert honest.high - honest.low == pytest.approx(single.high - single.low, rel=0.15)
    assert sure.high - sure.low < 0.7 * (honest.high - honest.low)


def test_no_hit_in_any_group_has_the_upper_bound_of_that_many_groups():
    assert interval([0.0] * 120, groups=list(range(40)) * 3) == wilson(0, 40)


def test_a_difference_over_groups_is_drawn_by_the_group():
    first, second = [1.0] * 12 + [0.0] * 28, [0.0] * 40
    once = difference(first, second)
    thrice = difference(first * 3, second * 3, groups=list(range(40)) * 3)
    assert thrice.value == once.value == pytest.approx(0.3)
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.2)
    assert thrice.test == "sign flips by group"
