"""Which names does a core miscopy? Every subject and value of the facts, and names of nobody, teacher-forced.

A core must say names that mean nothing to it: from the question into a lookup, and from the lookup into the answer. A
name counts as copied where each token of the turn that says it is the likeliest one. The last line is JSON::

    python -m benchmarks.copying --core models/demo-core
"""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import click

from trainer.base_model import Base, load_base
from trainer.canary import exact
from trainer.chat import Segment, render
from trainer.config import BaseConfig
from trainer.evaluate.command import files_of
from trainer.fact import read_targets
from trainer.reader import Reader
from trainer.world.document import Claim, answer, dialogue, need

_GIVEN = ("Ida", "Olaf", "Marta", "Yusuf", "Greta", "Tomas", "Ingrid", "Pavel", "Noor", "Elif", "Hiro", "Lucia", "Bram")
_FAMILY = ("Novak", "Okafor", "Shatner", "Brandt", "Moreau", "Kowalski", "Petrov", "Haddad", "Holm", "Tanaka")
_OTHER = "Zorin"


@click.command()
@click.option("--core", type=click.Path(path_type=Path, exists=True), default=Path("models/demo-core"))
@click.option("--facts", type=click.Path(path_type=Path, exists=True), multiple=True, default=(Path("knowledge"),))
def main(core: Path, facts: tuple[Path, ...]) -> None:
    """Print how many names are copied into a lookup and into an answer, and which are not."""
    targets = read_targets(files_of(facts)).facts
    subjects = dict.fromkeys(fact.subject for fact in targets)
    values = dict.fromkeys(fact.value for fact in targets if fact.value not in subjects and not fact.value.isdigit())
    strangers = [f"{given} {family}" for given, family in product(_GIVEN, _FAMILY)]
    base = load_base(BaseConfig(model=str(core)))
    reader = Reader(base.model).eval()
    shares: dict[str, float] = {}
    for kind, names in (("subjects", list(subjects)), ("values", list(values)), ("strangers", strangers)):
        for where, lookup in (("a lookup", True), ("an answer", False)):
            copied = _copied(base, reader, names, lookup=lookup)
            wrong = [name for name, right in zip(names, copied, strict=True) if not right]
            shares[f"{kind} into {where}"] = 1 - len(wrong) / len(names)
            told = "; ".join(wrong) or "none"
            print(f"{kind} into {where}: {len(names) - len(wrong)} of {len(names)}; wrong: {told}", flush=True)
    print(json.dumps({"benchmark": "copying", "core": str(core), "copied": shares}))


def _copied(base: Base, reader: Reader, names: Sequence[str], *, lookup: bool) -> list[bool]:
    """Whether each name is copied from the question into the lookup, or from the lookup into the answer."""
    encoder = base.encoder
    documents = []
    for name in names:
        claim = Claim(name, "headquarters", _OTHER) if lookup else Claim(_OTHER, "headquarters", name)
        question = f"What is the headquarters of {claim.subject}?"
        segments = render(dialogue("one_hop", question, answer(claim.value, need(claim)), tools=True), encoder.frame)
        first = next(place for place, segment in enumerate(segments) if segment.trained)
        read = [segment.trained and (place == first) == lookup for place, segment in enumerate(segments)]
        documents.append([Segment(segment.text, kept) for segment, kept in zip(segments, read, strict=True)])
    return exact(reader, encoder.examples(documents), encoder)


if __name__ == "__main__":
    main()
