"""How names are compared: normal form, and the 64-bit keys that the database indexes.

Not here: what a fact is (``fact.py``), tolerance for misspelling (``spelling.py``).
"""

import unicodedata
from hashlib import blake2b


def normalise(text: str) -> str:
    """Give the form in which names are compared: NFKC, case folded, white space collapsed.

    Two names are the same name exactly if their normal forms are equal. The form of a form is itself.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def hash64(normal: str) -> int:
    """Give a stable signed 64-bit key of a normal form.

    Two forms may share a key (about once in 10^7 stores of a million names), so what a key finds is compared by its
    normal form before it is answered.
    """
    return int.from_bytes(blake2b(normal.encode(), digest_size=8).digest(), "little", signed=True)
