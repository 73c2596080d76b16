"""`python -m tests.lab.nat`: what it lists and runs, and one line for each mistake."""

import signal
import subprocess
import sys

import pytest

from tests.lab.namespaces import why_unavailable
from tests.lab.nat.kinds import KINDS
from tests.lab.nodes import ROOT, Process, environment, wait_for

pytestmark = [pytest.mark.netns, pytest.mark.needs("ip", "nft", "unshare")]


@pytest.fixture(autouse=True)
def _can_make_namespaces() -> None:
    if why := why_unavailable():
        pytest.skip(why)


def by_hand(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.lab.nat", *args],
        capture_output=True,
        text=True,
        timeout=60.0,
        cwd=ROOT,
        env=environment(),
        check=False,
    )


def test_it_lists_the_kinds_and_runs_a_program_behind_one() -> None:
    listed = by_hand().stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == list(KINDS)
    done = by_hand("port_restricted", "public", "--run", "ip -4 -brief address show eth0")
    assert done.returncode == 0, done.stderr
    assert "192.168.1.10/24" in done.stdout.splitlines()[-1]


def test_ctrl_c_is_the_programs_affair() -> None:
    process = Process(
        [sys.executable, "-m", "tests.lab.nat", "public", "--run", "sh -c 'echo up; sleep 60'"]
    )
    wait_for(lambda: "up\n" in process.out.all, 10.0, "the program is up")
    assert process.end() == 128 + signal.SIGINT
    assert process.log == ""


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["foo"], "no kind is called foo"),
        (["open_input", "--userspace"], "open_input has no NAT in user space"),
        (["public", "--run", "no-such-program"], "no such program: no-such-program"),
        (["public", "--loss", "much"], "invalid float value"),
    ],
)
def test_a_mistake_is_answered_in_one_line(args: list[str], why: str) -> None:
    done = by_hand(*args)
    assert done.returncode != 0
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
