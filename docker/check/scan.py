"""A stranger's view: tries every address and port that it is given, and prints those that take a connection.

scan.py ADDRESS:PORT …
"""

import asyncio
import sys

TIMEOUT_S = 2.0


async def answers(target: str) -> bool:
    """Whether somebody takes a connection there."""
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def main(targets: list[str]) -> None:
    """Print what answers."""
    found = await asyncio.gather(*(answers(target) for target in targets))
    print(*(target for target, open_ in zip(targets, found, strict=True) if open_))


asyncio.run(main(sys.argv[1:]))
