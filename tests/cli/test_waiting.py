"""What is said to whoever waits: after a second, once, and gone from a terminal when it is over."""

import subprocess
import sys

import pytest

from tests.lab.nodes import ROOT, environment
from tests.lab.terminal import on_terminal

WAITS = """
import sys, time
from overlay.cli.waiting import waiting
with waiting("waiting for rain", in_pipes="--in-pipes" in sys.argv):
    time.sleep(float(sys.argv[1]))
print("it rains")
"""


def program(seconds: float, *words: str) -> list[str]:
    """Something that waits for so long."""
    return [sys.executable, "-c", WAITS, str(seconds), *words]


def test_a_terminal_shows_it_for_as_long_as_it_lasts() -> None:
    with on_terminal(program(2.5)) as terminal:
        terminal.wait_for(r"waiting for rain \(\d+ s\)")
        assert terminal.wait_end() == 0
        assert terminal.screen()[0] == "it rains"


def test_a_terminal_that_takes_nothing_back_has_a_line() -> None:
    with on_terminal(program(1.5), env={"TERM": "dumb"}) as terminal:
        assert terminal.wait_end() == 0
        assert terminal.text.splitlines() == ["waiting for rain", "it rains"]


@pytest.mark.parametrize(
    ("words", "said"), [([], ""), (["--in-pipes"], "waiting for rain\n")], ids=["quiet", "said"]
)
def test_a_pipe_hears_it_only_if_it_may_last_for_ever(words: list[str], said: str) -> None:
    done = subprocess.run(
        program(1.5, *words),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("it rains\n", said)
