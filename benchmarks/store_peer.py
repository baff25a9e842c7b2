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


def main(path: Path) -> None:
    """Print one line of JSON: what was measured on the texts of a file, with its unit."""
    texts = json.loads(path.read_text())
    embedder = NgramEmbedder()

    def transform(texts: list[str]) -> Any:
        return embedder.embed(list(texts))

    index = Embeddings(method="external", transform=transform, content=True, backend="faiss")
    begin = time.perf_counter()
    index.index((place, text, None) for place, text in enumerate(texts))
    insert = time.perf_counter() - begin
    updates, saved = [], []
    for turn in range(20):
        begin = time.perf_counter()
        index.upsert([(turn, f"Changed {turn}", None)])
        index.search(f"Changed {turn}", 1)
        updates.append(time.perf_counter() - begin)
        index.save(str(path.with_suffix(".txtai")))
        saved.append(time.perf_counter() - begin)
    searches, right = [], 0
    asked = texts[:: max(1, len(texts) // 200)]
    for text in asked:
        begin = time.perf_counter()
        found = index.search(text[:2] + text[3:], 5)
        searches.append(time.perf_counter() - begin)
        right += bool(found) and found[0]["text"] == text
    print(
        json.dumps(
            {
                f"insert of {len(texts):,}": [len(texts) / insert, "facts/s"],
                "update until it is found, in memory only, p50": [sorted(updates)[10] * 1e3, "ms"],
                "update until it is on the disk, p50": [sorted(saved)[10] * 1e3, "ms"],
                "search by a misspelled name, p50": [sorted(searches)[len(searches) // 2] * 1e3, "ms"],
                "found": [100 * right / len(asked), "%"],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
