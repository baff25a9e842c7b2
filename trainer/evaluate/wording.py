"""G. Honest wording: what a report may say, and what it must say was not tested.

Every sentence of the report that is not a figure comes from here, so that it can be read in one place and checked: a
verdict speaks of the measures that were taken and of nothing else.
"""

from collections.abc import Sequence

from trainer.evaluate.gate import Verdict
from trainer.evaluate.measure import MEASURES, Attack
from trainer.evaluate.outcome import Ledger, Role
from trainer.evaluate.profile import Profile
from trainer.evaluate.report import Report

_NEVER = (
    "attacks with gradients on the prompt (such as GCG), and prompts found by search",
    "languages other than that of the phrasings",
    "facts that can be inferred from other facts or from names; the control shows how much a name gives away",
    "relearning for longer, on more facts or at other learning rates than the curves show",
    "quantizers other than rounding to the nearest, such as those that are fitted to data (GPTQ, AWQ)",
    "word problems, logic, reading and neutral text from other hands than the trainer's generators; see --task",
    "activation patching, steering and other interventions on hidden states",
    "what a model of another size or another architecture would do",
)
"""No profile tests these."""


def untested(ledger: Ledger, verdicts: Sequence[Verdict], profile: Profile, *, has_control: bool) -> tuple[str, ...]:
    """What this evaluation did not test: first what it might have, then what no profile does."""
    missing = [f"{m.name} {m.title}" for m in MEASURES.values() if ledger.find(m.name, *Role) is None]
    listed = list(ledger.not_tested)
    listed += [
        f"{v.measure} {MEASURES[v.measure].title}: no power here, for it does not find the facts in the base either; "
        "the core lies within, and that is not counted"
        for v in verdicts
        if v.vacuous
    ]
    known = {line.split(" ")[0].rstrip(":") for line in listed}
    listed += [f"{name}: not part of this run" for name in missing if name.split(" ")[0] not in known]
    if not has_control:
        listed.append(
            "no never-knew control was given: A, B and C are compared with guessing (stand-in subjects, names alone), "
            "which is a weaker reference"
        )
    if profile.name != "full":
        listed.append(f"the {profile.name} profile asks few questions; its margins are wider than the full profile's")
    return (*listed, *_NEVER)


def headline(report: Report) -> str:
    """The verdict in one sentence, saying no more than was measured."""
    if not report.verdicts:
        return "Nothing was judged."
    judged = len(report.counted)
    idle = len(report.verdicts) - judged
    aside = f" {idle} more find nothing in the base either and are not counted." if idle else ""
    loose = sum(verdict.passed and not verdict.conclusive for verdict in report.counted)
    if report.passed:
        doubt = f"; for {loose} of them the interval reaches beyond the margin" if loose else ""
        named = ", ".join(sorted({verdict.measure[0] for verdict in report.counted}))
        return f"All {judged} judged measures (attacks {named}) lie within their margins{doubt}.{aside}"
    if not report.failed:
        return (
            "Nothing lies outside its margin, but no attack of A finds these facts in the base: it does not know them, "
            "so there is nothing to prove. Give the facts that the base knows, and the base that the core was made of."
        )
    letters = sorted({verdict.measure[0] for verdict in report.failed})
    named = ", ".join(f"{letter} ({Attack(letter).heading.lower()})" for letter in letters)
    return (
        f"{len(report.failed)} of {judged} judged measures lie outside their margins: the core fails at {named}.{aside}"
    )


def caution(report: Report) -> str:
    """What the verdict does not mean."""
    asked = max((figure.n for figure in report.figures), default=0)
    return (
        f"This says what was measured, on at most {asked} items a measure, and nothing else. It is no proof that the "
        "facts cannot be found by other means; what was not tested is listed at the end."
    )


def reference_name(role: Role | None) -> str:
    """How the report calls a reference."""
    names = {
        Role.CONTROL: "the never-knew control",
        Role.STAND_IN: "guessing (stand-in subjects)",
        Role.CHANCE: "majority or name alone",
        Role.BASE: "the base",
        Role.CORE: "the core",
    }
    return names[role] if role is not None else "a bare limit"
