"""Prints the jobs that Prometheus watches and how each is."""

import json
from urllib.request import urlopen

with urlopen("http://prometheus:9090/api/v1/targets", timeout=5) as response:
    targets = json.load(response)["data"]["activeTargets"]
print(
    *sorted(f"{target['labels']['job']} {target['labels']['instance']} {target['health']}" for target in targets),
    sep="; ",
)
