"""`overlay up` and `overlay join`: be a node."""

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from overlay import signals
from overlay.cli import tables
from overlay.cli.invites import read_invite
from overlay.cli.options import Location, Patience, data_dir_option, json_option, read_link
from overlay.cli.waiting import Waiting, tell
from overlay.errors import CommandFailed, Failure, UsageError
from overlay.names import plain
from overlay.node import terminal
from overlay.node.directory import default_path


def node_options(command: Any) -> Any:
    """What `up` and `join` have in common."""
    for option in reversed(
        (
            click.option(
                "--config",
                type=Location(dir_okay=False),
                envvar="OVERLAY_CONFIG",
                help="A TOML file of settings, in place of the user's own.",
            ),
            click.option("--listen", metavar="IP:PORT", help="Where to listen (UDP)."),
            click.option(
                "--advertise",
                metavar="IP:PORT",
                multiple=True,
                help="Where others reach this node, if it cannot know; may be repeated.",
            ),
            click.option(
                "--name", metavar="N", help="What other members see, also in later lives."
            ),
            click.option(
                "--print-invite",
                is_flag=True,
                help="Print the invite link, a secret, where others may read it, too.",
            ),
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
            click.option(
                "--reset-network",
                is_flag=True,
                help="First forget the network, its members and invites; the identity stays. Asks.",
            ),
            click.option("--yes", is_flag=True, help="With --reset-network: do not ask."),
        )
    ):
        command = option(command)
    return data_dir_option(json_option(command))


@click.command()
@click.option("--join", "link", metavar="LINK|-", help="Enter the network of this invite.")
@node_options
def up(link: str | None, **options: Any) -> int:
    """Start a node in the foreground; print an invite link.

    The first `up` creates a network, later ones return to it. Ctrl-C leaves. The link is printed on
    a terminal; elsewhere only with --json or --print-invite.
    """
    with signals.ending():
        return be_a_node(link, **options)


@click.command()
@click.argument("link", metavar="[LINK|-]", nargs=-1)
@node_options
def join(link: tuple[str, ...], **options: Any) -> int:
    """Start a node that enters the network of an invite LINK.

    The same as `up --join LINK`. Without LINK it is pasted at the prompt, where a link that was
    wrapped does no harm, and no list of processes or history of a shell shows it.
    """
    if not link and not sys.stdin.isatty():
        raise UsageError(
            "there is no link: `overlay join LINK`, or `overlay join -` to read it from standard "
            "input, or `overlay join` at a terminal to paste it"
        )
    with signals.ending():
        return be_a_node(" ".join(link) or "-", **options)


def be_a_node(
    link: str | None,
    *,
    config: Path | None,
    data_dir: Path,
    listen: str | None,
    advertise: tuple[str, ...],
    name: str | None,
    print_invite: bool,
    timeout: float,
    assignments: tuple[str, ...],
    reset_network: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Read all that can be wrong, then run; the exit code."""
    from overlay.node import config as settings

    given = {"listen": listen, "advertise": ",".join(advertise) or None, "name": name}
    flags = {key: (f"--{key}", text) for key, text in given.items() if text is not None}
    config = config or settings.users_own()
    chosen = settings.load(config, os.environ, assignments, flags, warn)
    invite = None if link is None else read_invite(asked_for(link), time.time())

    show_link = print_invite or terminal.is_shown()
    name_of_it = "" if invite is None else plain(invite.network_name)
    doing = f"joining {name_of_it}, {timeout:g} s at most" if invite else "starting the node"
    with Waiting(doing) as wait:
        from overlay.node.daemon import Options, run
        from overlay.node.logs import background

        def announce(event: dict[str, Any]) -> None:
            wait.end()
            if as_json:
                out.write(json.dumps(event) + "\n")
            elif event["event"] == "ready":
                out.write(welcome(event, config, show_link=show_link))
            elif event["event"] == "invite":  # people read the rest in the log
                out.write("\n" + invitation(event, data_dir, show_link=show_link) + LEAVING)

        def progress(line: str) -> None:
            wait.end()
            show_progress(line)

        def consent(what: str) -> None:
            wait.end()
            if not yes:
                with signals.interrupting():
                    ask_to_forget(what)

        asking = consent if reset_network else None
        with background(sys.stdout) as out:
            return run(
                Options(
                    chosen, data_dir, invite, timeout, announce, out.afterwards, progress, asking
                )
            )


def ask_to_forget(what: str) -> None:
    """Return if the user agrees; CommandFailed: does not; UsageError: cannot be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            f"--reset-network forgets {what}, and there is no terminal to ask on: add --yes"
        )
    tell(f"This forgets {what}. The identity stays.")
    if not click.confirm("Begin afresh?", err=True):
        raise CommandFailed(Failure.REFUSED, "nothing is forgotten, and no node was started")


def warn(text: str) -> None:
    """Say in one line what is odd, and go on."""
    click.echo(f"warning: {text}", err=True)


def asked_for(link: str) -> str:
    """The link itself; who is asked for it at a terminal may think better of it."""
    with signals.interrupting():
        return read_link(link)


def show_progress(line: str) -> None:
    """Tell who waits at a terminal; the log has it as well."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


LEAVING = "\nCtrl-C leaves.\n"
NO_INVITE = """\
There is no invite link yet, since no other node could use it: no network
interface of this machine has an address. There is one as soon as one has.
"""


def welcome(ready: dict[str, Any], config: Path | None, *, show_link: bool) -> str:
    """Who this node is, and how the next one gets in."""
    data_dir = Path(ready["data_dir"])
    invites = ready["invite"] is not None
    told = {"link": ready["invite"], "expires_at": ready["expires_at"]}
    return f"""\
This is {plain(ready["name"])} in the network {plain(ready["network"])}.
peer id    {ready["peer_id"]}
listening  {tables.listening(ready["listen"])}
data       {data_dir}
{f"settings   {config}" + chr(10) if config else ""}
{invitation(told, data_dir, show_link=show_link) if invites else NO_INVITE}{LEAVING}"""


def invitation(told: dict[str, Any], data_dir: Path, *, show_link: bool) -> str:
    """How the next node gets in: the link stands in it once, as part of what to type."""
    program = this_program()
    if not show_link:
        here = "" if data_dir == default_path() else f" --data-dir {shlex.quote(str(data_dir))}"
        return f"""\
To let another node in, make an invite link for it:

    {program} invite{here}

(It is not printed here, where others may read it; --print-invite does that.)
"""
    elsewhere = "" if program == "overlay" else "(There, overlay may be in another place.)\n"
    return f"""\
On the second machine (or here, with a --data-dir of its own):

    {program} join {told["link"]}

{elsewhere}The link is a secret: whoever has it can join until {tables.moment(told["expires_at"])}.
{tables.qr_code(told["link"])}"""


def this_program() -> str:
    """How the user would start this program again."""
    import shutil

    if shutil.which("overlay"):
        return "overlay"
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{sys.executable} -m overlay"
    return sys.argv[0]
