"""The demo world: documents that teach a base facts, reading, logic and the use of a memory; and its wording.

Everything here is a pure function of a world and a seeded `random.Random`; nothing knows torch or a tokenizer.
"""
