"""Tolerance for one slip of the pen in a name: which stored names are one edit away.

Whoever changes one character of a name leaves one half of it whole. So each name is indexed by its two halves, and a
misspelled one is met by six point queries, in step with the transaction that made it: nothing to build, nothing stale.
An edit is an insertion, a deletion, a substitution or a transposition. Not here: the queries (``view.py``).

Source: the pigeonhole filter for approximate matching (Navarro 2001, "A guided tour to approximate string matching",
section 8, https://doi.org/10.1145/375360.375365), for one error.
"""

from rapidfuzz.distance import OSA

from knowledge_store.key import hash64

SHORTEST = 4
"""Shorter names are not guessed at: one edit makes too many of them another name."""


def halves(normal: str) -> tuple[int, int]:
    """Give the two keys under which a name is found when one half of it is misspelled."""
    length, middle, digits = len(normal), len(normal) // 2, _digits(normal)
    return _half(length, digits, "<", normal[:middle]), _half(length, digits, ">", normal[middle:])


def half_keys(normal: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Give the keys, of first halves and of last halves, of all names that may be one edit from `normal`."""
    heads, tails = [], []
    digits = _digits(normal)  # a digit is never a slip, so names that differ in a number only do not crowd one key
    for length in (len(normal) - 1, len(normal), len(normal) + 1):
        middle = length // 2
        heads.append(_half(length, digits, "<", normal[:middle]))
        tails.append(_half(length, digits, ">", normal[len(normal) - (length - middle) :]))
    return tuple(heads), tuple(tails)


def _half(length: int, digits: str, side: str, text: str) -> int:
    return hash64(f"{length} {digits}{side}{text}")


def middle_swapped(normal: str) -> str:
    """Give `normal` with the characters around its middle exchanged: the one edit that spoils both halves."""
    middle = len(normal) // 2
    return normal[: middle - 1] + normal[middle] + normal[middle - 1] + normal[middle + 1 :] if middle else normal


def one_edit_apart(one: str, other: str) -> bool:
    """Whether two different normal forms may be the same name, misspelled.

    A digit is never a slip: ``Apollo 11`` is not ``Apollo 12``.
    """
    return (
        min(len(one), len(other)) >= SHORTEST
        and OSA.distance(one, other, score_cutoff=1) == 1
        and _digits(one) == _digits(other)
    )


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())
