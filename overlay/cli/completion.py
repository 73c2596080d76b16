"""`overlay completion`: commands, options and peers, completed by the shell."""

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overlay.cli.options import Word
from overlay.errors import OverlayError
from overlay.names import short_id
from overlay.node.client import Client
from overlay.node.directory import default_path

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
PATIENCE = 0.5
"""Seconds that somebody who has pressed Tab waits at most for the node (guess)."""
SAFE_NAME = re.compile(r"\w[\w.@+-]*")
"""A name that stands on a command line as it is. Peers choose their names, and shells insert what
is completed without quotes: whoever is called anything else is completed by the id."""


class Peer(Word):
    """A peer, by name or id; the running node knows which there are."""

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> "list[CompletionItem[str]]":
        """Those that begin like this; none where no node runs or it does not answer in time."""
        from click.shell_completion import CompletionItem

        directory = ctx.params.get("data_dir")
        node = Client(directory if isinstance(directory, Path) else default_path())
        try:
            rows = node.get("/peers/all", PATIENCE)["peers"]
        except (OverlayError, OSError):
            return []
        return [CompletionItem(word, help=told) for word, told in words(rows, incomplete)]


def words(rows: list[dict[str, Any]], incomplete: str) -> list[tuple[str, str]]:
    """What to put in place of an incomplete word, and what else is known of each peer.

    A peer goes by its name where it is the only one of that name, or else by its short id; where
    none begins like the word, it may be the beginning of an id.
    """
    holders = Counter(row["name"] for row in rows)
    called, by_id = [], []
    for row in rows:
        name, whole, short = row["name"], row["peer_id"], short_id(row["peer_id"])
        is_safe = SAFE_NAME.fullmatch(name) is not None
        is_alone = is_safe and holders[name] == 1
        called.append((name, short) if is_alone else (short, name if is_safe else ""))
        by_id += [(short, name if is_safe else ""), (whole, name if is_safe else "")]
    for found in (called, by_id):
        if matching := sorted(pair for pair in found if pair[0].startswith(incomplete)):
            return matching
    return []


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete what you type.

    It completes commands, options, files, and the names of peers while a node runs.

    \b
    ~/.bashrc:                   eval "$(overlay completion bash)"
    ~/.zshrc, below compinit:    eval "$(overlay completion zsh)"
    ~/.config/fish/config.fish:  overlay completion fish | source
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    root = context.find_root()
    assert script is not None
    click.echo(script(root.command, {}, "overlay", "_OVERLAY_COMPLETE").source(), nl=False)
