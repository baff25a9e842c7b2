"""Load the demo facts into the store that METABOLISM_STORE names: each module that the store does not have yet.

Run by compose before the service, at every start. A module that is there is left alone, whatever its facts are now:
what users wrote is theirs. SEED names the folder with the modules' NDJSON files; empty, nothing is loaded.
"""

import os
import sys
from pathlib import Path

from knowledge_store.change import Change
from knowledge_store.errors import KnowledgeError
from knowledge_store.exchange import FileFormat, read_changes
from knowledge_store.store import Store


def seed(location: str, folder: Path) -> None:
    """Import what is missing, one commit a module. Raises KnowledgeError where the store does not take it."""
    with Store.open(location) as store:
        present = {module.name for module in store.modules()}
        for file in sorted(folder.glob("*.ndjson")):
            if file.stem in present:
                print(f"{file.stem}: is there, left as it is")
                continue
            with file.open("rb") as stream:
                facts = read_changes(stream, FileFormat.of(file), file.stem)
                report = store.commit(Change(file.stem, "merge", facts), author="demo")
            print(f"{file.stem}: {report.added} facts added in generation {report.generation}")


def main() -> int:
    """Run as a command; 3 where the store cannot be written."""
    folder = os.environ.get("SEED", "/app/knowledge")
    try:
        if folder:
            seed(os.environ["METABOLISM_STORE"], Path(folder))
    except KnowledgeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
