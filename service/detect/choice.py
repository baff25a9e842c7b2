"""The detectors that a setting names."""

from collections.abc import Sequence
from typing import Literal

from service.detect.base import StepDetector
from service.detect.claim import ClaimDetector
from service.detect.uncertainty import UncertaintyDetector

Detectors = Literal["call", "claim", "uncertainty", "union"]


def choose_detectors(name: Detectors) -> Sequence[StepDetector]:
    """Make the detectors called `name`. Calls are always answered; «call» adds nothing, «union» adds everything."""
    match name:
        case "call":
            return ()
        case "claim":
            return (ClaimDetector(),)
        case "uncertainty":
            return (UncertaintyDetector(),)
        case "union":
            return (UncertaintyDetector(), ClaimDetector())
