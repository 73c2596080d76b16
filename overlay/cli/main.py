"""`overlay`: reads the command line, runs one command, turns every error into a line and a code.

Exit codes: 0 done, 1 failed, 2 usage or unreachable, 3 no node is running, 70 a bug of ours, 130
or 143 ended by a signal.
Heavy modules are imported by the command that needs them and by no other.
"""

import contextlib
import errno
import io
import os
import re
import sys

import click

from overlay import signals
from overlay.cli.ask import COMMANDS
from overlay.cli.by_hand import accept, answer, offer
from overlay.cli.chat import chat
from overlay.cli.completion import completion
from overlay.cli.files import receive, send
from overlay.cli.invites import invite
from overlay.cli.ping import ping
from overlay.cli.sim import sim
from overlay.cli.up import join, up
from overlay.errors import CommandFailed, NodeSilent, NoNode, UsageError
from overlay.names import plain
from overlay.node.hiding import hidden
from overlay.version import __version__

FAILED, USAGE, NO_NODE = 1, 2, 3
CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
WHOLE = 1_000
"""Characters: more than any summary has."""
DASH = re.compile(r"[\u2012-\u2015]-?(?=[A-Za-z])")
"""What some programs make of the two hyphens before an option."""


class Commands(click.Group):
    """All of them, each summed up in whole sentences however narrow the terminal is."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A line for each, or two."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, each.get_short_help_str(WHOLE)) for name, each in found if each]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="overlay")
def overlay() -> None:
    """A peer-to-peer mesh that needs no server.

    Start a node with `overlay up`; it prints a link. Give that to another machine's
    `overlay join`. Every other command asks the node that runs on this machine.
    """


for command in (
    *(up, join, invite, offer, answer, accept, *COMMANDS),
    *(ping, chat, send, receive, sim, completion),
):
    overlay.add_command(command)


def main() -> None:
    """Run the command of this process's command line; `overlay.__main__` begins with it."""
    signals.install()
    open_streams()
    if os.environ.get("HOME") == "":  # else ~ would be the root directory
        del os.environ["HOME"]
    code = run(sys.argv[1:])
    if signals.came():  # while the interpreter is taken apart, another one would be death by it
        flush()
        os._exit(code)
    sys.exit(code)


def open_streams() -> None:
    """Have all three, whatever closed ones we were given; print what they can show."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the first socket would get this number
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(arguments: list[str]) -> int:
    """One command to its end; the exit code. An error is one line on standard error."""
    try:
        with signals.interrupting():
            result = overlay.main(
                list(map(undashed, arguments)), prog_name="overlay", standalone_mode=False
            )
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        return complain(one_line(error), USAGE)
    except NoNode as error:
        return complain(str(error), NO_NODE)
    except (NodeSilent, UsageError) as error:
        return signals.status() if signals.came() else complain(str(error), USAGE)
    except CommandFailed as error:
        return complain(error.text, FAILED)
    except (KeyboardInterrupt, click.Abort):
        return signals.status()
    except (BrokenPipeError, SystemExit):  # the latter is what click makes of the former
        write_no_more()
        return 0  # whoever read our output has seen enough
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        write_no_more()
        return complain(f"the output cannot be written: {error.strerror}", FAILED)
    return signals.code_of(result if isinstance(result, int) else 0)


def flush() -> None:
    """Let out what is still buffered, if anybody takes it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def undashed(argument: str) -> str:
    """An option whose hyphens were made into a dash on its way here, as it was meant."""
    found = DASH.match(argument)
    if found is None:
        return argument
    meant = "--" + argument[found.end() :]
    return meant if meant.partition("=")[0] in options(overlay) else argument


def options(command: click.Command) -> set[str]:
    """Every option of a command and of those below it."""
    own = {option for parameter in command.params for option in parameter.opts}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union(*map(options, below))


def write_no_more() -> None:
    """What is still buffered would fail again, at the very end."""
    sys.stdout = sys.__stdout__ or sys.stdout
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(error: click.ClickException) -> str:
    """What was wrong with the command line, and where to read more."""
    text = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{text} (see `{context.command_path} --help`)" if context else text


def complain(text: str, code: int) -> int:
    """Say what is wrong in one line, without the secrets that it may quote; `code`."""
    text = hidden(" ".join(text.split()))
    with contextlib.suppress(OSError):  # nobody can read it; the code says it, too
        click.echo(f"error: {plain(text)}", err=True)
    return code
