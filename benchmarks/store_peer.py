"""What txtai takes for the same work: run by ``store_table.py`` with the Python of an environment that has txtai.

It imports nothing of this project but the embedder's file, so that both sides work on the same vectors.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from txtai import Embeddings

from knowledge_store.embed import NgramEmbedder


def main(count: int) -> None:
    """Print one line of JSON: what was measured, with its unit."""
    embedder = NgramEmbedder()

    def transform(texts: list[str]) -> Any:
        return embedder.embed(list(texts))

    index = Embeddings(method="external", transform=transform, content=True, backend="faiss")
    texts = [f"Company {place} of the {place % 977} th street ceo" for place in range(count)]
    begin = time.perf_counter()
    index.index((place, text, None) for place, text in enumerate(texts))
    insert = time.perf_counter() - begin
    updates = []
    for turn in range(20):
        begin = time.perf_counter()
        index.upsert([(turn, f"Company changed {turn}", None)])
        index.search(f"Company changed {turn}", 1)
        updates.append(time.perf_counter() - begin)
    searches = []
    for turn in range(100):
        begin = time.perf_counter()
        index.search(texts[turn * 31 % count], 5)
        searches.append(time.perf_counter() - begin)
    print(
        json.dumps(
            {
                f"insert of {count:,}": [count / insert, "facts/s"],
                "update until it is seen, p50": [sorted(updates)[10] * 1e3, "ms"],
                "search with embedding, p50": [sorted(searches)[50] * 1e3, "ms"],
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
