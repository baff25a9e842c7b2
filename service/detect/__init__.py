"""Detectors: which steps need a fact? One Protocol in ``base.py``, one detector a file."""
