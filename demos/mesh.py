"""Eight processes on this machine become a mesh, and outlive the one that began it.

Each joins by the invite of a different member. Then the creator is killed with SIGKILL, and a
message still reaches everyone.
"""

import sys
from pathlib import Path

if __package__ in {None, ""}:  # run as a script: the repository is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.stage import Stage, arguments, curtain, require, table_of


def assemble(stage: Stage, count: int) -> None:
    """Start the nodes one after another, each with an invite that its predecessor made."""
    stage.step(f"{count} processes, each joining by the invite of the one before it")
    for number in range(1, count + 1):
        node = stage.crew.node(f"n{number}")
        host = stage.cast[-1] if stage.cast else None
        stage.show(node, "starting")
        node.up(join=host.ready["invite"] if host else None)
        stage.cast.append(node)
        stage.show(node, f"joined by {host.name}'s invite" if host else "created the mesh")


def play(stage: Stage, count: int, *, freeze_one: bool) -> None:
    """The whole demonstration; raises `Failed` at the first thing that does not hold."""
    assemble(stage, count)
    stage.step("everybody links to everybody")
    stage.settle()
    links = stage.links()
    require(len(links) == count * (count - 1) // 2, f"{len(links)} links are no full mesh")
    stage.step("everybody subscribes")
    ears = stage.listen()
    creator, *survivors = stage.cast
    stage.step(f"{creator.name}, who created the mesh, is killed with SIGKILL")
    creator.kill()
    stage.show(creator, "killed")
    if freeze_one:
        survivors[0].freeze()
    stage.announce(survivors[-1], ears, survivors)
    stage.no_internal_errors(survivors)
    stage.step("the message reached every survivor")
    stage.close(table_of(links))


def main() -> None:
    """Play it; exit 0 only if all of it held."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--freeze-one",
        action="store_true",
        help="stop one survivor before the last message: the demonstration has to fail",
    )
    options = parser.parse_args()
    with curtain() as stage:
        play(stage, options.nodes, freeze_one=options.freeze_one)


if __name__ == "__main__":
    main()
