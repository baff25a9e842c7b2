"""The micro world of the gate's tests, for the rivals too."""

from evaluate.conftest import _one_thread, micro

__all__ = ["_one_thread", "micro"]
