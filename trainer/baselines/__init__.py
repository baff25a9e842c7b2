"""The rivals: other people's ways of removing facts, on our streams and loop, each tuned with the same small budget.

Each loss and each edit is written after its source and has a reference test; `compare.py` makes one table of them all.
"""
