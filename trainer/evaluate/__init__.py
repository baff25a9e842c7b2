"""The gate: attacks on a core that look for the facts it is said to have lost, and tests of the skills it kept.

Each attack is a file of functions that take models and questions and give outcomes, item by item; `gate.py` alone
turns outcomes into verdicts. Nothing here makes a core: `relearning.py` fine-tunes copies of one, to attack it.
"""
