"""Measures of the graph that the active views form, as the papers define them."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from overlay.core.types import PeerId

SOURCES_MAX = 200
"""Nodes at most from which the ways to all others are measured, evenly spread over the nodes."""
VIEWS = {
    "degree": "peers in an active view at the end, on average",
    "degree_min": "peers in the smallest active view at the end",
    "degree_max": "peers in the largest active view at the end",
    "degree_full": "the share of nodes that are in as many views as a view has places at least",
    "connected": "the share of nodes in the largest component of the active views at the end",
    "clustering": "the share of a node's neighbours that are each other's, on average",
    "path": "links on the shortest way from a node to another, on average",
    "path_max": "links on the longest of these ways",
}

Graph = Mapping[PeerId, Sequence[PeerId]]


def measures(views: Graph, full: int) -> dict[str, float | None]:
    """Of the views of the nodes that are up; `full`: the places that a view has.

    Whoever is in a view but not up is left out of the ways and the clustering.
    """
    degrees = [len(view) for view in views.values()]
    incoming = dict.fromkeys(views, 0)
    both: dict[PeerId, dict[PeerId, None]] = {peer: {} for peer in views}
    for peer, view in views.items():
        for other in view:
            if other in both:
                incoming[other] += 1
                both[peer][other] = both[other][peer] = None
    undirected = {peer: tuple(others) for peer, others in both.items()}
    largest = max(map(len, components(undirected)), default=0)
    path, longest = _ways(undirected)
    return {
        "degree": fmean(degrees) if degrees else None,
        "degree_min": min(degrees, default=None),
        "degree_max": max(degrees, default=None),
        "degree_full": _share(sum(count >= full for count in incoming.values()), len(views)),
        "connected": _share(largest, len(views)),
        "clustering": _clustering(both),
        "path": path,
        "path_max": longest,
    }


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def _clustering(graph: Mapping[PeerId, Mapping[PeerId, None]]) -> float | None:
    """The mean of the local coefficients (D. Watts, S. Strogatz, 1998)."""
    coefficients = []
    for neighbours in graph.values():
        pairs = len(neighbours) * (len(neighbours) - 1)
        linked = sum(1 for one in neighbours for other in neighbours if other in graph[one])
        coefficients.append(linked / pairs if pairs else 0.0)
    return fmean(coefficients) if coefficients else None


def _ways(graph: Graph) -> tuple[float | None, float | None]:
    """The mean and the greatest number of links from a node to another that it can reach."""
    nodes = list(graph)
    step = max(1, len(nodes) // SOURCES_MAX)
    total = reached = longest = 0
    for source in nodes[::step][:SOURCES_MAX]:
        seen, frontier, depth = {source}, [source], 0
        while frontier:
            longest = max(longest, depth)
            total += depth * len(frontier)
            reached += len(frontier)
            depth += 1
            onward = []
            for node in frontier:
                for other in graph[node]:
                    if other not in seen:
                        seen.add(other)
                        onward.append(other)
            frontier = onward
        reached -= 1  # the source itself
    return (total / reached, longest) if reached else (None, None)


def components(views: Graph) -> list[dict[PeerId, None]]:
    """The connected parts of a graph of symmetric views."""
    parts: list[dict[PeerId, None]] = []
    left = dict.fromkeys(views)
    while left:
        first = next(iter(left))
        part, frontier = {first: None}, [first]
        while frontier:
            for peer in views.get(frontier.pop(), ()):
                if peer not in part and peer in views:
                    part[peer] = None
                    frontier.append(peer)
        left = {peer: None for peer in left if peer not in part}
        parts.append(part)
    return parts
