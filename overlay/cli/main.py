"""`overlay`: reads the command line, runs one command, turns every error into a line and a code.

Exit codes: 0 done, 1 failed, 2 usage or unreachable, 3 no node is running, 70 a bug of ours.
Heavy modules are imported by the command that needs them and by no other.
"""

import errno
import io
import os
import re
import sys

import click

from overlay.cli.ask import COMMANDS
from overlay.cli.chat import chat
from overlay.cli.invites import invite
from overlay.cli.sim import sim
from overlay.cli.up import join, up
from overlay.errors import CommandFailed, NoNode, UsageError
from overlay.version import __version__

FAILED, USAGE, NO_NODE, INTERRUPTED = 1, 2, 3, 130
CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
LINK = re.compile(r"overlay:[A-Za-z0-9_-]{8,}")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="overlay")
def overlay() -> None:
    """A peer-to-peer mesh that needs no server.

    Start a node with `overlay up`; it prints a link. Give that to another machine's
    `overlay join`. Every other command asks the node that runs on this machine.
    """


for command in (up, join, invite, *COMMANDS, chat, sim):
    overlay.add_command(command)


def main() -> None:
    """The entry point of the command `overlay`."""
    open_streams()
    sys.exit(run(sys.argv[1:]))


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
        result = overlay.main(arguments, prog_name="overlay", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.ClickException as error:
        return complain(one_line(error), USAGE)
    except NoNode as error:
        return complain(str(error), NO_NODE)
    except UsageError as error:
        return complain(str(error), USAGE)
    except CommandFailed as error:
        return complain(error.text, FAILED)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the latter is what click makes of the former
        write_no_more()
        return 0  # whoever read our output has seen enough
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        write_no_more()
        return complain(f"the output cannot be written: {error.strerror}", FAILED)
    return result if isinstance(result, int) else 0


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
    text = LINK.sub("overlay:…", " ".join(text.split()))
    click.echo(f"error: {text}", err=True)
    return code
