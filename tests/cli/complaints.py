"""How a node ends, and how a command fails that a user got wrong: one line and an exit code."""

import re
import subprocess

from tests.lab.nodes import Node


def complaint(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line with which a command failed as it should."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def failed_start(node: Node, *args: str, **keywords: str | None) -> str:
    """The one line of an `up` that must not come up."""
    process = node.start(*args, **keywords)
    code = process.popen.wait(60)
    process.out.finish()
    process.err.finish()
    done = subprocess.CompletedProcess([], code, "".join(process.out.all), process.log)
    return complaint(done)


def leave(node: Node) -> None:
    """`overlay leave`, and the process it ends."""
    node.ok("leave")
    assert node.process is not None
    assert node.process.popen.wait(30) == 0
    node.process.out.finish()
    node.process.err.finish()
