"""Uncertainty: a step whose content tokens the core was not sure of is taken back and begun with a lookup.

Only where the step or the question names a subject that the memory knows: elsewhere a lookup could give nothing.

Source: Jiang et al., Active Retrieval Augmented Generation (FLARE), https://arxiv.org/abs/2305.06983: look up where any
token's probability falls below a threshold. Assumes that the core's probabilities are calibrated, which a model trained
on its own recall is not quite; the threshold is measured in `benchmarks/detectors.py`.
"""

import math

from knowledge_store.generation import Generation
from service.detect.base import Draft, Objection, Verdict
from service.detect.spot import spot_subjects
from service.grounding import abstains, is_grounded
from service.trace import Detector


class UncertaintyDetector:
    """Looks at the least probable content token."""

    needs_logprobs = True

    def __init__(self, threshold: float = 0.9) -> None:
        self._threshold = math.log(threshold)

    def judge(self, draft: Draft, generation: Generation) -> Verdict:
        """Object where some content token was less probable than the threshold."""
        if draft.own_calls or abstains(draft.text):
            return None
        content = [p for token, p in zip(draft.tokens, draft.logprobs, strict=False) if any(map(str.isalnum, token))]
        if not content or min(content) >= self._threshold:
            return None
        if is_grounded(draft.text, draft.question, draft.calls) is not False:
            return None
        if not spot_subjects(f"{draft.text}\n{draft.question}", generation):
            return None
        return Objection(Detector.UNCERTAINTY, f"a token had a probability of {math.exp(min(content)):.2f}")
