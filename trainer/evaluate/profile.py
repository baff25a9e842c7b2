"""How much an evaluation does: quick for a CPU, full for a GPU. A profile is data; the thresholds go with it."""

from dataclasses import dataclass
from typing import Literal

from trainer.evaluate.threshold import FULL, QUICK, TEST, Thresholds

ProfileName = Literal["quick", "full", "small", "test"]


@dataclass(frozen=True, slots=True)
class Profile:
    """The sizes of an evaluation."""

    name: ProfileName
    thresholds: Thresholds
    questions: int
    """Facts a behaviour measure asks."""
    samples: int
    """k of "best of k"."""
    candidates: int
    """Values that a cloze ranks."""
    probe_subjects: int
    probe_relations: int
    probe_restarts: int
    probe_mlp_layers: int
    """How many layers, evenly spread, the MLP probe reads; the linear one reads all."""
    relearn_steps: int
    relearn_rates: tuple[float, float]
    relearn_batch: int
    relearn_questions: int
    skill_questions: int
    """Items a skill."""
    memory_questions: int
    tampered_layers: int
    """How many layers, evenly spread, are restored one at a time."""
    ten_steps: int = 30
    unrelated_steps: int = 40
    lora_steps: int = 100
    text_batch: int = 24
    """Texts without a fact in a step; they are some three times as long as a question."""
    base_steps: int | None = None
    """How many steps the base, which never lost the facts, is fine-tuned beside the core; as many where it is None."""
    relearn_runs: int = 1
    """How often relearning is done, each time with a seed of its own."""
    few_facts: int = 100
    """How many facts are few enough to be learned again in `relearn_steps`."""
    batch: int = 64


QUICK_PROFILE = Profile(
    "quick", QUICK, questions=60, samples=4, candidates=6, probe_subjects=240, probe_relations=2, probe_restarts=2,
    probe_mlp_layers=2, relearn_steps=40, relearn_rates=(1e-4, 4e-4), relearn_batch=24, relearn_questions=60,
    skill_questions=60, memory_questions=40, tampered_layers=2, ten_steps=10, unrelated_steps=10, lora_steps=24,
    text_batch=8, base_steps=6,
)  # fmt: skip
FULL_PROFILE = Profile(
    "full", FULL, questions=500, samples=16, candidates=50, probe_subjects=2000, probe_relations=6, probe_restarts=5,
    probe_mlp_layers=9, relearn_steps=400, relearn_rates=(1e-4, 3e-4), relearn_batch=64, relearn_questions=400,
    skill_questions=500, memory_questions=300, tampered_layers=99, ten_steps=100, unrelated_steps=200, lora_steps=400,
    text_batch=64, relearn_runs=3, batch=256,
)  # fmt: skip
TEST_PROFILE = Profile(
    "test", TEST, questions=30, samples=3, candidates=4, probe_subjects=120, probe_relations=1, probe_restarts=3,
    probe_mlp_layers=1, relearn_steps=40, relearn_rates=(1e-3, 2e-3), relearn_batch=24, relearn_questions=30,
    skill_questions=24, memory_questions=12, tampered_layers=2, ten_steps=8, unrelated_steps=8, lora_steps=20,
    few_facts=18,
)  # fmt: skip
"""For worlds of a few dozen facts and models of less than a million parameters."""
SMALL_PROFILE = Profile(
    "small", QUICK, questions=120, samples=4, candidates=8, probe_subjects=240, probe_relations=3, probe_restarts=3,
    probe_mlp_layers=2, relearn_steps=120, relearn_rates=(5e-4, 1.5e-3), relearn_batch=32, relearn_questions=120,
    skill_questions=100, memory_questions=60, tampered_layers=2, ten_steps=20, unrelated_steps=40, lora_steps=80,
    text_batch=32, few_facts=40,
)  # fmt: skip
"""For models of a few million weights: more questions than the quick profile, and rates at which such models learn."""
PROFILES: dict[str, Profile] = {
    profile.name: profile for profile in (QUICK_PROFILE, FULL_PROFILE, SMALL_PROFILE, TEST_PROFILE)
}
