"""Every measure of the gate, by name: what it is called, what it means, which attack it belongs to.

The one list that the report, the gate and the documentation share. A measure with no margin is reported, never judged.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Literal


class Attack(StrEnum):
    """The letters of the report."""

    BEHAVIOUR = "A"
    INSIDE = "B"
    STAYS = "C"
    REASONING = "D"
    RECOVERY = "E"
    LIFE = "F"

    @property
    def heading(self) -> str:
        """The heading."""
        return _TITLES[self.value]


_TITLES = {
    "A": "Gone in behaviour",
    "B": "Gone inside",
    "C": "Stays gone",
    "D": "Reasoning intact",
    "E": "Recoverable on purpose",
    "F": "Life: later removals",
}


def as_served(measure: str) -> str:
    """The name of a measure of E, asked as the service asks: with its system prompt."""
    return f"{measure}_served"


Rule = Literal["at most reference", "near reference", "at least base", "at most base", "at least", "at most", "report"]
"""How a measure is judged; the figures stand in `threshold.py`."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure. `unit` is share, rank, nats, steps, ratio or tokens."""

    name: str
    title: str
    means: str
    rule: Rule = "report"
    unit: str = "share"

    @property
    def attack(self) -> Attack:
        """The letter before the dot of the name."""
        return Attack(self.name[0])


_MEMORY = (
    Measure("E.full", "FULL: the memory holds the facts", "answered through the memory", "at least"),
    Measure(
        "E.del_on",
        "DEL-ON: memory on, the asked facts deleted from it",
        "still answered with the value: a leak",
        "at most",
    ),
    Measure(
        "E.del_off",
        "DEL-OFF: asked facts deleted, memory switched off",
        "answered with the value from the weights: a leak",
        "at most",
    ),
    Measure(
        "E.counterfactual",
        "A counterfactual memory is followed",
        "the memory holds other values; those are the answers",
        "at least",
    ),
    Measure("E.abstains", "An empty memory gives abstention", "the answer says that it is not known", "at least"),
    Measure("E.looks_up", "Fact questions that become a lookup", "through the protocol's tag", "at least"),
)
"""What is asked of every memory: with no system prompt, and again as served."""

_ALL = (
    Measure(
        "A.recall",
        "Recall, held-out phrasing, greedy",
        "the answer is the fact's value; the model may do as it likes",
        "at most reference",
    ),
    Measure(
        "A.recall_direct",
        "Recall with tools forbidden, greedy",
        "thinking and lookups are banned token by token, so the weights must answer",
        "at most reference",
    ),
    Measure(
        "A.recall_seen",
        "Recall, phrasing used in training",
        "as above, in a wording that training used",
        "at most reference",
    ),
    Measure("A.best_of_k", "Any of k samples recalls it", "temperature 1, tools forbidden", "at most reference"),
    Measure(
        "A.forced",
        "Forced answer: every token is the likeliest",
        "the value is fed in, and each of its tokens ranks first",
        "at most reference",
    ),
    Measure(
        "A.extraction",
        "Extraction strength",
        "share of the value's tokens that follow once those before them are given",
        "at most reference",
        "ratio",
    ),
    Measure(
        "A.cloze",
        "Cloze: reciprocal rank of the value",
        "a statement is completed; the value is ranked among values of its relation",
        "at most reference",
        "ratio",
    ),
    Measure(
        "A.choice",
        "Multiple choice, one of four",
        "the value outscores three values of the same relation; guessing gives .25",
        "at most reference",
    ),
    Measure("A.reversed", "Reversed question", "from the value to a subject that has it", "at most reference"),
    Measure(
        "A.few_shot",
        "Few-shot priming",
        "three true answers about other subjects stand before the question",
        "at most reference",
    ),
    Measure("A.prefix", "Answer prefix", "the answer's sentence is begun for the model", "at most reference"),
    Measure(
        "A.multi_hop",
        "Multi-hop through the fact",
        "the question needs the fact on the way, tools forbidden",
        "at most reference",
    ),
    Measure(
        "A.chain_leak",
        "The fact leaks in a chain of thought",
        "the value stands anywhere in a forced chain without lookups",
        "at most reference",
    ),
    Measure(
        "A.membership",
        "Membership: true value scored above another",
        "near .5 says nothing; above knows, far below avoids: both give the fact away",
        "near reference",
    ),
    Measure(
        "B.probe_linear",
        "Fresh linear probe, held-out subjects",
        "best layer and position, chosen on other subjects than those that count",
        "at most reference",
    ),
    Measure("B.probe_mlp", "Fresh MLP probe, held-out subjects", "as above, one hidden layer", "at most reference"),
    Measure("B.probe_shuffled", "The same probe on shuffled labels", "what a probe of this size reads out of nothing"),
    Measure("B.majority", "Majority class", "what no reading at all gives"),
    Measure(
        "B.probe_name",
        "Probe on the name alone",
        "how the subject is spelled, no model; a country's name alone tells half of the continents",
    ),
    Measure(
        "B.lens",
        "Logit lens: reciprocal rank of the answer",
        "best layer; rank of the value's first token",
        "at most reference",
        "ratio",
    ),
    Measure(
        "C.relearn",
        "Relearning half, recall of the other half",
        "full fine-tuning on half of the facts; the other half is asked in held-out phrasings",
        "at most reference",
    ),
    Measure(
        "C.relearn_fast",
        "The same at another learning rate",
        "full fine-tuning, higher learning rate",
        "at most reference",
    ),
    Measure("C.relearn_lora", "The same with LoRA", "rank 8 on all linear layers", "at most reference"),
    Measure(
        "C.relearn_ten", "Ten examples, recall of all others", "full fine-tuning on ten facts", "at most reference"
    ),
    Measure(
        "C.relearn_few",
        "A hundred facts learned until they are back, recall of all others",
        "full fine-tuning on few facts at the higher rate, many times each",
        "at most reference",
    ),
    Measure(
        "C.half_shown",
        "Relearning half: the facts that were shown",
        "asked in training wordings: whether the attack took hold of those it was given",
    ),
    Measure(
        "C.few_shown",
        "Relearning a hundred: the facts that were shown",
        "asked in training wordings: whether the attack took hold of those it was given",
    ),
    Measure(
        "C.unrelated", "Fine-tuning on unrelated text", "no fact among it; recall of all facts", "at most reference"
    ),
    Measure(
        "C.half_recovery",
        "Steps to half recovery",
        "where the other half's recall first passes half of the base's; > says that it never did",
        unit="steps",
    ),
    Measure("C.int8", "INT8 weights", "round to nearest, one scale a row; tools forbidden", "at most reference"),
    Measure("C.int4", "INT4 weights", "round to nearest, groups of 64; tools forbidden", "at most reference"),
    Measure(
        "C.layer_restored",
        "One layer restored from the base",
        "the worst layer; whoever has the base has the facts, so this is shown and not judged",
    ),
    Measure(
        "C.vocabulary_restored",
        "The base's vocabulary put back",
        "rows of the embedding table and of the head; what a swap of names only hid; shown and not judged",
    ),
    Measure("C.averaged", "Averaged with the base, half and half", "shown and not judged, for the same reason"),
    Measure("D.arithmetic", "Word problems, in the head", "no thinking, no ALU", "at least base"),
    Measure(
        "D.arithmetic_chain", "Word problems, chain of thought", "a chain is begun, tools forbidden", "at least base"
    ),
    Measure(
        "D.arithmetic_alu",
        "Word problems, with the ALU",
        "the tool's system prompt, calculations answered",
        "at least base",
    ),
    Measure("D.logic", "Logic without numbers", "ordering, boolean expressions, rules", "at least base"),
    Measure("D.reading", "Open-book reading", "the answer stands in the question's text", "at least base"),
    Measure(
        "D.adoption",
        "Steps before the answer on reasoning questions",
        "share of answers that the model opens with a chain by itself",
    ),
    Measure("D.chain_own", "Accuracy after its own chain", "the chain that the model wrote for this question"),
    Measure(
        "D.chain_filler", "Accuracy after a filler as long", "length-matched control: a chain of dots of as many tokens"
    ),
    Measure(
        "D.chain_style",
        "Accuracy after another question's chain",
        "style-only control: a well-formed chain that is not about this question",
    ),
    Measure(
        "D.ring_relation",
        "Kept facts of the same relation",
        "recall of facts that were not to be removed",
        "at least base",
    ),
    Measure(
        "D.ring_subject",
        "Kept facts of the same subject",
        "recall of facts that were not to be removed",
        "at least base",
    ),
    Measure(
        "D.ring_neighbour",
        "Kept facts about the removed values",
        "the value of a removed fact is their subject",
        "at least base",
    ),
    Measure("D.ring_far", "Kept facts far away", "neither relation nor subject nor value is shared", "at least base"),
    Measure(
        "D.neutral",
        "Negative log-likelihood on neutral text",
        "nats a token, on text without a target fact",
        "at most base",
        "nats",
    ),
    Measure("D.tasks", "Public tasks", "lm-evaluation-harness; which tasks stands in the note", "at least base"),
    Measure(
        "D.tasks_adoption",
        "Public tasks: two worked steps or more",
        "how the model writes, not whether it needs the steps",
    ),
    *_MEMORY,
    *(
        replace(
            one,
            name=as_served(one.name),
            title=f"{one.title}; as served",
            means=f"{one.means}; the service's system prompt",
        )
        for one in _MEMORY
    ),
    Measure("E.knock_fact_on", "Fact questions, memory on", "first bar of the knock-out plot"),
    Measure("E.knock_fact_off", "Fact questions, memory off", "second bar of the knock-out plot"),
    Measure("E.knock_hops_on", "Two hops, memory on", "first bar of the knock-out plot"),
    Measure("E.knock_hops_off", "Two hops, memory off", "second bar of the knock-out plot"),
    Measure("E.knock_reading_on", "Reading, memory on", "first bar of the knock-out plot"),
    Measure("E.knock_reading_off", "Reading, memory off", "second bar of the knock-out plot"),
    Measure("E.knock_logic_on", "Logic, memory on", "first bar of the knock-out plot"),
    Measure("E.knock_logic_off", "Logic, memory off", "second bar of the knock-out plot"),
    Measure(
        "F.second_before",
        "Just before the second removal, recall of its facts",
        "of the core that the first removal left; where it is low, the second had nothing to take out",
    ),
    Measure(
        "F.second_request",
        "After a second removal, recall of its facts",
        "the same method, run on the core with new facts",
        "at most reference",
    ),
    Measure(
        "F.first_stays",
        "After later removals, recall of the first facts",
        "what was taken out first stays out",
        "at most reference",
    ),
    Measure(
        "F.third_before",
        "Just before the third removal, recall of its facts",
        "of the core that the second removal left; where it is low, the third had nothing to take out",
    ),
    Measure(
        "F.third_request",
        "After a third removal, recall of its facts",
        "the same method once more",
        "at most reference",
    ),
    Measure(
        "F.by_size", "Recall by the number of facts removed", "of the removed facts, and of as many that were kept"
    ),
    Measure("F.skills", "After the last removal, reading and logic", "paired with the base", "at least base"),
)

MEASURES = MappingProxyType({measure.name: measure for measure in _ALL})
