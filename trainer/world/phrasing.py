"""How a relation is asked for and stated, and which wording is held out for which fact.

A phrasing is a template over ``{subject}`` (and ``{value}`` in checks and statements). It comes from files of one form,
in this order: those of a user, the demo world's (`phrasings.yaml`), that of common relations which a user might define
(`everyday.yaml`). Behind them stand the generic frames, which ask for a relation by its own name. A wording that is
*held out* for a fact occurs in no training stream together with that fact, though it does with others: that is what
makes an honest paraphrase test.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from random import Random

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trainer.errors import FactsError
from trainer.mistake import explain_all

LEAST_PHRASINGS = 2  # one to train, one to hold out


class RelationWording(BaseModel):
    """What a file says of one relation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nouns: tuple[str, ...] = Field(default=(), description="what the relation is called, for the generic frames")
    questions: tuple[str, ...] = Field(default=(), description="questions of its own, over {subject}")
    statements: tuple[str, ...] = Field(default=(), description="sentences over {subject} and {value}")
    checks: tuple[str, ...] = Field(default=(), description="yes/no questions over {subject} and {value}")
    whose: tuple[str, ...] = Field(default=(), description="questions over {value} for the subject that has it")
    plural: str = Field(default="", description="several of it: owners")
    more: str = Field(default="", description="what a subject is whose number is the larger: taller")
    less: str = Field(default="", description="what one is whose number is the smaller: shorter")


class WordingFile(BaseModel):
    """A file of phrasings: frames over {noun} and {subject} that fit every relation, and relations of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    questions: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    relations: dict[str, RelationWording] = Field(default_factory=dict)


class Phrasings:
    """The wording of every relation; finished once read."""

    def __init__(
        self, files: Sequence[WordingFile], *, everyday: Sequence[WordingFile] = (), held_out: float = 0.2
    ) -> None:
        if not 0 < held_out < 1:
            raise FactsError(f"held_out is {held_out}; it is a share between 0 and 1, such as 0.2")
        self._files = (*files, *everyday)
        self.plain = Phrasings(files, held_out=held_out) if everyday else self
        """The wording without `everyday.yaml`."""
        self._threshold = int(held_out * 256)
        self._questions: dict[str, tuple[str, ...]] = {}
        self._statements: dict[str, tuple[str, ...]] = {}
        self._checks: dict[str, tuple[str, ...]] = {}

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """The relations that a file words itself."""
        return tuple(dict.fromkeys(name for file in self._files for name in file.relations))

    def nouns(self, relation: str) -> tuple[str, ...]:
        """What the relation is called; its own name comes first."""
        own = (noun for wording in self._own(relation) for noun in wording.nouns)
        return tuple(dict.fromkeys([relation, *own]))

    def whose(self, relation: str) -> tuple[str, ...]:
        """Questions from a value back to its subject; templates over {value}, where a file has any."""
        return tuple(text for wording in self._own(relation) for text in wording.whose)

    def plurals(self, relation: str) -> tuple[str, ...]:
        """What several values of the relation are called, where a file says it."""
        return tuple(wording.plural for wording in self._own(relation) if wording.plural)

    def comparatives(self, relation: str) -> tuple[tuple[str, str], ...]:
        """What the subjects of a larger and of a smaller number are, where a file says it: (taller, shorter)."""
        return tuple((wording.more, wording.less) for wording in self._own(relation) if wording.more and wording.less)

    def _own(self, relation: str) -> tuple[RelationWording, ...]:
        return tuple(file.relations[relation] for file in self._files if relation in file.relations)

    def questions(self, relation: str) -> tuple[str, ...]:
        """All questions, the relation's own first; templates over {subject}."""
        if relation not in self._questions:
            self._questions[relation] = self._fill(relation, "questions")
        return self._questions[relation]

    def statements(self, relation: str) -> tuple[str, ...]:
        """All statements; templates over {subject} and {value}."""
        if relation not in self._statements:
            self._statements[relation] = self._fill(relation, "statements")
        return self._statements[relation]

    def checks(self, relation: str) -> tuple[str, ...]:
        """All yes/no questions; templates over {subject} and {value}."""
        if relation not in self._checks:
            self._checks[relation] = self._fill(relation, "checks")
        return self._checks[relation]

    def _fill(self, relation: str, kind: str) -> tuple[str, ...]:
        own = [text for wording in self._own(relation) for text in getattr(wording, kind)]
        frames = [text for file in self._files for text in getattr(file, kind)]
        framed = [frame.replace("{noun}", noun) for frame in frames for noun in self.nouns(relation)]
        templates = tuple(dict.fromkeys([*own, *framed]))
        if kind == "questions" and len(templates) < LEAST_PHRASINGS:
            raise FactsError(
                f"the relation {relation!r} has {len(templates)} phrasing; it needs {LEAST_PHRASINGS} at least, so "
                "that one can be held out: add questions to a file under facts.phrasings"
            )
        return templates

    def is_held_out(self, subject: str, relation: str, template: str) -> bool:
        """Whether this wording never meets this fact in training.

        Decided by a hash of the three, so that it needs no list and is the same in every process; one template of
        each fact is always held out, and one never.
        """
        templates = self.questions(relation)
        digest = hashlib.blake2b(f"{subject}\x1f{relation}".encode(), digest_size=8).digest()
        always = int.from_bytes(digest, "big") % len(templates)
        if template == templates[always]:
            return True
        if template == templates[(always + 1) % len(templates)]:
            return False
        return hashlib.blake2b(template.encode(), key=digest, digest_size=1).digest()[0] < self._threshold

    def ask(self, subject: str, relation: str, rng: Random, *, held_out: bool = False) -> str:
        """A question for a fact, in a wording that is held out for it, or in one that is not."""
        return self.choose(subject, relation, rng, held_out=held_out).replace("{subject}", subject)

    def choose(self, subject: str, relation: str, rng: Random, *, held_out: bool = False) -> str:
        """The wording of `ask` alone, its {subject} left open."""
        templates = self.questions(relation)
        while True:
            template = templates[int(rng.random() ** 2 * len(templates))]  # leans to the relation's own wording
            if self.is_held_out(subject, relation, template) is held_out:
                return template

    def state(self, subject: str, relation: str, value: str, rng: Random) -> str:
        """A sentence that states a fact."""
        return rng.choice(self.statements(relation)).replace("{subject}", subject).replace("{value}", value)

    def check(self, subject: str, relation: str, value: str, rng: Random) -> str:
        """A yes/no question whether a fact holds."""
        return rng.choice(self.checks(relation)).replace("{subject}", subject).replace("{value}", value)


def read_phrasings(paths: Sequence[Path] = (), *, held_out: float = 0.2) -> Phrasings:
    """Read the package's phrasings and a user's own, which come first.

    Raises:
        FactsError: a file cannot be read, has an unknown key, or a template without its {subject} or {value}.
    """
    users = [_parse(str(path), _read(path)) for path in paths]
    world, everyday = (
        _parse(name, resources.files("trainer.world").joinpath(name).read_text(encoding="utf-8"))
        for name in ("phrasings.yaml", "everyday.yaml")
    )
    return Phrasings([*users, world], everyday=[everyday], held_out=held_out)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise FactsError(f"cannot read phrasings from {path}: {error.strerror}") from error


def _parse(name: str, text: str) -> WordingFile:
    try:
        file = WordingFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise FactsError(f"{name} is no file of phrasings: {error}") from error
    except ValidationError as error:
        said = "; ".join(explain_all(WordingFile, error))
        raise FactsError(f"{name} is no file of phrasings: {said}") from error
    _require(name, file.questions, "{subject}", "{noun}")
    _require(name, file.statements, "{subject}", "{noun}", "{value}")
    _require(name, file.checks, "{subject}", "{noun}", "{value}")
    for wording in file.relations.values():
        _require(name, wording.questions, "{subject}")
        _require(name, wording.statements, "{subject}", "{value}")
        _require(name, wording.checks, "{subject}", "{value}")
        _require(name, wording.whose, "{value}")
    return file


def _require(name: str, templates: Sequence[str], *slots: str) -> None:
    for template in templates:
        missing = [slot for slot in slots if slot not in template]
        if missing:
            raise FactsError(f"{name}: {template!r} lacks {', '.join(missing)}")
