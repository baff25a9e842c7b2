"""Sends 40 questions of 5 hops each through the engines' balancer; 1 when a question's hops met two engines.

Both engines must get some, or the check would pass on a balancer that knows only one.
"""

import sys
from urllib.request import Request, urlopen

QUESTIONS, HOPS = 40, 5


def engine_of(request_id: str) -> str:
    """Which engine answers a request with this id."""
    request = Request(
        "http://metabolismcheck-sticky:8000/v1/completions", data=b"{}", headers={"X-Request-Id": request_id}
    )
    with urlopen(request, timeout=10) as response:
        name: str = response.read().decode()
    return name


met = [{engine_of(f"question-{number}-{hop}") for hop in range(HOPS)} for number in range(QUESTIONS)]
shares = {name: sum(name in engines for engines in met) for name in set().union(*met)}
print(f"  {QUESTIONS} questions of {HOPS} hops: {shares}")
sys.exit(any(len(engines) > 1 for engines in met) or len(shares) < 2)
