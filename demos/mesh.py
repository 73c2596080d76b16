"""Sixteen processes on this machine become a mesh, and outlive the one that began it.

Each joins by the invite of a different member. They do not all link to each other: gossip needs a
few links each, and whoever wants to talk to a stranger asks the mesh for a connection. Then the
creator is killed with SIGKILL; everybody stays connected, and a message still reaches everyone.
"""

import sys
from pathlib import Path

if __package__ in {None, ""}:  # run as a script: the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos import acts
from demos.stage import SETTINGS, Stage, arguments, curtain


def assemble(stage: Stage, count: int) -> None:
    """Start the nodes one after another, each with an invite that its predecessor made."""
    stage.step(f"{count} processes, each joining by the invite of the one before it")
    for number in range(1, count + 1):
        node = stage.crew.node(f"n{number}")
        host = stage.cast[-1] if stage.cast else None
        stage.show(node, "starting")
        node.up(*SETTINGS, join=host.ready["invite"] if host else None)
        stage.cast.append(node)
        stage.show(node, f"joined by {host.name}'s invite" if host else "created the mesh")


def play(stage: Stage, count: int, *, freeze_one: bool, stop_others: bool) -> None:
    """The whole demonstration; raises `Failed` at the first thing that does not hold."""
    assemble(stage, count)
    creator, *others = stage.cast
    links = acts.settle(stage, stage.cast, creator.name)
    acts.connect_strangers(stage, [node.name for node in others], stop_others=stop_others)
    acts.listen(stage)
    acts.announce(stage, creator, stage.cast, "hello")
    survivors = acts.lose(stage, creator)
    if freeze_one:
        survivors[0].freeze()
    acts.announce(stage, survivors[-1], survivors, "we go on")
    acts.finish(stage, links, acts.still_connected(stage, survivors))


def main() -> None:
    """Play it; exit 0 only if all of it held."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--freeze-one",
        action="store_true",
        help="stop one survivor before the last message: the demonstration has to fail",
    )
    options = parser.parse_args()
    with curtain(options, Stage) as stage:
        play(stage, options.nodes, freeze_one=options.freeze_one, stop_others=options.stop_others)


if __name__ == "__main__":
    main()
