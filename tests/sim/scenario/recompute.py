"""Recomputes reliability, hops and success from a trace, with nothing of overlay: python FILE."""

import json
import sys
from statistics import fmean
from typing import Any


def up(history: dict[str, list[tuple[float, str]]], node: str, start: float, end: float) -> bool:
    """Whether a node joined before `start` and did not go down until `end`."""
    before = [kind for t, kind in history.get(node, []) if t <= start]
    later = [kind for t, kind in history.get(node, []) if start < t <= end]
    return before[-1:] == ["join"] and "crash" not in later


def main(path: str) -> dict[str, float | None]:
    with open(path) as file:
        first, *events = map(json.loads, file)
    scenario = first["scenario"]
    history: dict[str, list[tuple[float, str]]] = {}
    came: dict[tuple[str, str, str], dict[str, Any]] = {}
    for event in events:
        if event["kind"] in {"join", "crash"}:
            history.setdefault(event["node"], []).append((event["t"], event["kind"]))
        if event["kind"] in {"deliver", "answered"}:
            came.setdefault((event["kind"], event["id"], event["node"]), event)
    reliability, hops, success = [], [], []
    for event in events:
        if event["kind"] not in {"publish", "request"}:
            continue
        phases = scenario["publish" if event["kind"] == "publish" else "requests"]
        start, node, name = event["t"], event["node"], event["id"]
        end = start + phases[int(name.split("-")[0])]["within"]
        if not all(up(history, each, start, end) for each in (node, event.get("to", node))):
            continue
        if event["kind"] == "request":
            answer = came.get(("answered", name, node))
            success.append(answer is not None and answer["t"] <= end)
            continue
        audience = [each for each in history if up(history, each, start, end)]
        heard = [came[key] for each in audience if (key := ("deliver", name, each)) in came]
        heard = [event for event in heard if event["t"] <= end]
        reliability.append(len(heard) / len(audience))
        hops += [each["hops"] for each in heard if each["node"] != node]
    found = {"reliability": reliability, "hops": hops, "success": success}
    return {name: fmean(values) if values else None for name, values in found.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
