"""Turns outcomes into verdicts: which measure is compared with whom, and whether the core passes.

Pure: a ledger and the thresholds in, verdicts out. The reference of A, B and C is the never-knew control; where none
was given, it is mere guessing: the core itself asked about subjects that do not exist, or what a name alone tells a
probe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trainer.evaluate.measure import MEASURES, Measure
from trainer.evaluate.outcome import Ledger, Outcomes, Role
from trainer.evaluate.statistic import Difference, difference, interval
from trainer.evaluate.threshold import Thresholds


@dataclass(frozen=True, slots=True)
class Verdict:
    """One measure, judged.

    `difference` is core minus reference, or core minus the bare limit where `reference` is None. `limit` bounds it, or
    bounds the value itself where there is no reference. `conclusive` says that the whole 95 % interval lies on the side
    of the point. `vacuous` says that the attack finds nothing in the base either, so that passing it shows nothing.
    """

    measure: str
    reference: Role | None
    value: float
    reference_value: float | None
    difference: Difference | None
    limit: float
    passed: bool
    conclusive: bool
    reason: str
    vacuous: bool = False


def passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether a core passes: nothing lies outside, and A, where it was made, found in the base what it looked for."""
    behaviour = [verdict for verdict in verdicts if verdict.measure.startswith("A.")]
    looked = not behaviour or not all(verdict.vacuous for verdict in behaviour)
    counted = any(not verdict.vacuous for verdict in verdicts)
    return counted and looked and all(verdict.passed for verdict in verdicts)


def judge(ledger: Ledger, thresholds: Thresholds) -> tuple[Verdict, ...]:
    """Judge every measure that the core has outcomes of and that has a rule."""
    return tuple(_verdicts(ledger, thresholds))


def _verdicts(ledger: Ledger, thresholds: Thresholds) -> Iterator[Verdict]:
    for measure in MEASURES.values():
        core = ledger.find(measure.name, Role.CORE)
        if core is None or measure.rule == "report":
            continue
        match measure.rule:
            case "at most reference" | "near reference":
                roles = (Role.CONTROL, Role.STAND_IN, Role.CHANCE)
            case "at least base" | "at most base":
                roles = (Role.BASE, Role.BASE, Role.BASE)
            case _:
                verdict = _judge_alone(measure, core, thresholds)
                found = _finds_the_facts(measure, ledger, None, thresholds)
                yield replace(verdict, vacuous=verdict.passed and not found)
                continue
        reference = ledger.find(measure.name, *roles)
        if reference is None:
            ledger.skip(f"{measure.name}: measured, not judged: there is nothing to compare it with")
            continue
        verdict = _judge_against(measure, core, reference, thresholds)
        yield replace(verdict, vacuous=verdict.passed and not _finds_the_facts(measure, ledger, reference, thresholds))


def _finds_the_facts(measure: Measure, ledger: Ledger, reference: Outcomes | None, thresholds: Thresholds) -> bool:
    """Whether the base, which has the facts, would lie outside; true where it was not asked or nothing may leak."""
    base = ledger.find(measure.name, Role.BASE)
    if base is None or measure.rule == "at least":
        return True
    if reference is None:
        return not _judge_alone(measure, base, thresholds).passed
    return reference.role is Role.BASE or not _judge_against(measure, base, reference, thresholds).passed


def _judge_alone(measure: Measure, core: Outcomes, thresholds: Thresholds) -> Verdict:
    bounds = interval(core.items, groups=core.groups)
    value = _exact(bounds.value)
    if measure.rule == "at least":
        limit = thresholds.at_least[measure.name]
        passed, conclusive = value >= limit, bounds.low >= limit or bounds.high < limit
        said = "at least"
    else:
        limit = thresholds.at_most[measure.name]
        passed, conclusive = value <= limit, bounds.high <= limit or bounds.low > limit
        said = "at most"
    reason = f"{bounds.value:.3f}, to be {said} {limit:g}"
    return Verdict(measure.name, None, bounds.value, None, None, limit, passed, conclusive, reason)


def _judge_against(measure: Measure, core: Outcomes, reference: Outcomes, thresholds: Thresholds) -> Verdict:
    groups = core.groups if core.groups == reference.groups else ()
    gap = difference(core.items, reference.items, paired=reference.role is not Role.CHANCE, groups=groups)
    limit, value = _limit(measure, thresholds), _exact(gap.value)
    match measure.rule:
        case "at most reference" | "at most base":
            passed, conclusive = value <= limit, gap.high <= limit or gap.low > limit
            said = f"at most {limit:g} above"
        case "at least base":
            passed, conclusive = value >= -limit, gap.low >= -limit or gap.high < -limit
            said = f"at most {limit:g} below"
        case _:
            passed = abs(value) <= limit
            inside, outside = max(abs(gap.low), abs(gap.high)) <= limit, gap.low > limit or gap.high < -limit
            conclusive = inside or outside
            said = f"within {limit:g} of"
    who = str(reference.role).replace("_", "-")
    reason = f"{core.mean:.3f} against {reference.mean:.3f} ({who}), to be {said} it"
    return Verdict(measure.name, reference.role, core.mean, reference.mean, gap, limit, passed, conclusive, reason)


def _exact(value: float) -> float:
    """Without the last bits, in which 44/60 lies more than .05 below 47/60."""
    return round(value, 12)


def _limit(measure: Measure, thresholds: Thresholds) -> float:
    if measure.rule == "near reference":
        return thresholds.membership
    if measure.rule == "at most base":
        return thresholds.nats_above_base
    if measure.rule == "at least base":
        return thresholds.below_base
    return thresholds.probe_above_reference if measure.name.startswith("B.") else thresholds.above_reference
