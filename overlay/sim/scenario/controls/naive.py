"""The naive control of `byzantine-flood`: whoever is named replaces somebody drawn at random.

The same nodes, adversaries, views and rounds as in the scenario, without a network: shuffles of a
few ids, as HyParView's paper has them, and a passive view in which a random member gives way.
"""

from overlay.core.types import Random

SHUFFLE = 8
"""Ids in a sample, the sender's own among them (HyParView §5.1)."""


def byzantine_share(
    nodes: int, byzantine: int, view: int, factor: float, rounds: int, rng: Random
) -> float:
    """The share of adversaries in the views of honest nodes after so many rounds.

    Adversaries have the numbers from 0; everybody begins with members drawn at random.
    """
    everybody, honest = range(nodes), range(byzantine, nodes)
    views = {node: rng.sample(everybody, min(view, nodes)) for node in honest}
    pushes = round(byzantine * factor)
    for _ in range(rounds):
        for node in honest:
            partner = rng.choice(views[node])
            if partner >= byzantine:
                ours, theirs = _sample(node, views, rng), _sample(partner, views, rng)
                _replace(views[partner], ours, rng)
            else:
                theirs = _named(byzantine, rng)
            _replace(views[node], theirs, rng)
        for _ in range(pushes):
            _replace(views[rng.choice(honest)], _named(byzantine, rng), rng)
    slots = [peer for each in views.values() for peer in each]
    return sum(peer < byzantine for peer in slots) / len(slots)


def _sample(node: int, views: dict[int, list[int]], rng: Random) -> list[int]:
    return [node, *rng.sample(views[node], min(SHUFFLE - 1, len(views[node])))]


def _named(byzantine: int, rng: Random) -> list[int]:
    return rng.sample(range(byzantine), min(SHUFFLE, byzantine))


def _replace(view: list[int], named: list[int], rng: Random) -> None:
    for peer in named:
        if peer not in view:
            view[rng.randrange(len(view))] = peer
