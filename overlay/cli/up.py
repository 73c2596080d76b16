"""`overlay up` and `overlay join`: be a node."""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from overlay.cli import tables
from overlay.cli.invites import read_invite
from overlay.cli.options import Patience, data_dir_option, json_option, read_link
from overlay.node.words import plain


def node_options(command: Any) -> Any:
    """What `up` and `join` have in common."""
    for option in reversed(
        (
            click.option(
                "--config",
                type=click.Path(path_type=Path, dir_okay=False),
                envvar="OVERLAY_CONFIG",
                help="A TOML file of settings.",
            ),
            click.option("--listen", metavar="IP:PORT", help="Where to listen (UDP)."),
            click.option(
                "--advertise",
                metavar="IP:PORT",
                multiple=True,
                help="Where others reach this node, if it cannot know; may be repeated.",
            ),
            click.option("--name", metavar="N", help="What other members see."),
            click.option(
                "--timeout",
                type=Patience(),
                default=30.0,
                show_default=True,
                metavar="S",
                help="How long a join goes on while nobody answers.",
            ),
            click.option(
                "--set",
                "assignments",
                metavar="KEY=VALUE",
                multiple=True,
                help="Any setting; may be repeated.",
            ),
        )
    ):
        command = option(command)
    return data_dir_option(json_option(command))


@click.command()
@click.option("--join", "link", metavar="LINK|-", help="Enter the network of this invite.")
@node_options
def up(link: str | None, **options: Any) -> int:
    """Start a node in the foreground; print an invite link for the next one.

    The first `up` creates a network, later ones return to it. Ctrl-C leaves.
    """
    return be_a_node(link, **options)


@click.command()
@click.argument("link", metavar="LINK|-")
@node_options
def join(link: str, **options: Any) -> int:
    """Start a node that enters the network of an invite LINK; the same as `up --join LINK`."""
    return be_a_node(link, **options)


def be_a_node(
    link: str | None,
    *,
    config: Path | None,
    data_dir: Path,
    listen: str | None,
    advertise: tuple[str, ...],
    name: str | None,
    timeout: float,
    assignments: tuple[str, ...],
    as_json: bool,
) -> int:
    """Read all that can be wrong, then run; the exit code."""
    from overlay.node import config as settings

    given = {"listen": listen, "advertise": ",".join(advertise) or None, "name": name}
    flags = {key: (f"--{key}", text) for key, text in given.items() if text is not None}
    chosen = settings.load(config, os.environ, assignments, flags)
    invite = None if link is None else read_invite(read_link(link), time.time())

    from overlay.node.daemon import Options, run
    from overlay.node.logs import background

    with background(sys.stdout) as out:

        def announce(event: dict[str, Any]) -> None:
            if as_json:
                out.write(json.dumps(event) + "\n")
            elif event["event"] == "ready":
                out.write(welcome(event))  # people read the rest in the log
            elif event["event"] == "invite":
                out.write("\n" + invitation(event["link"], event["expires_at"]) + LEAVING)

        return run(Options(chosen, data_dir, invite, timeout, announce, show_progress))


def show_progress(line: str) -> None:
    """Tell who waits at a terminal; the log has it as well."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


LEAVING = "\nCtrl-C leaves.\n"
NO_INVITE = """\
There is no invite link yet, since no other node could use it: no network interface of this machine
has an address. The link follows as soon as one has.
"""


def welcome(ready: dict[str, Any]) -> str:
    """Who this node is, and how the next one gets in."""
    link = ready["invite"]
    return f"""\
This is {plain(ready["name"])} in the network {plain(ready["network"])}.
peer id    {ready["peer_id"]}
listening  {tables.listening(ready["listen"])}
data       {ready["data_dir"]}

{NO_INVITE if link is None else invitation(link, ready["expires_at"])}{LEAVING}"""


def invitation(link: str, expires_at: int) -> str:
    """How the next node gets in."""
    program = this_program()
    elsewhere = "" if program == "overlay" else "\n(There, overlay may be in another place.)\n"
    return f"""\
Invite link, a secret: whoever has it can join until {tables.moment(expires_at)}.

{link}

{tables.qr_code(link)}
On the second machine (or here, with a --data-dir of its own):

    {program} join {link}
{elsewhere}"""


def this_program() -> str:
    """How the user would start this program again."""
    if shutil.which("overlay"):
        return "overlay"
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{sys.executable} -m overlay"
    return sys.argv[0]
