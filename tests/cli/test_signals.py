"""A signal ends the command at whatever moment it comes, and none is lost."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.lab.moments import endings
from tests.lab.nodes import ROOT, Crew, environment
from tests.soak import everyday

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


# --- a node --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", everyday({20}, [20, 600]))
def test_none_of_many_signals_at_random_moments_is_lost(tmp_path: Path, count: int) -> None:
    numbers = [each for _ in range(count) for each in (INT, TERM)]
    numbers[:: count // 5] = [HUP] * len(numbers[:: count // 5])
    seen = list(endings(tmp_path, numbers, seed=count))
    assert [(each, each.fault()) for each in seen if each.fault()] == []
    assert any(each.heeded and not each.was_ready for each in seen), "none of them was early"
    assert any(each.was_ready for each in seen), "none of them was late"


@pytest.mark.slow
def test_a_node_that_is_not_to_hear_a_hangup_stays(tmp_path: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with Crew(tmp_path) as crew:
        node = crew.node("a", enter=nohup).up()
        assert node.process is not None
        node.process.signal(signal.SIGHUP)
        node.ok("status")
        node.process.signal(signal.SIGTERM)
        assert node.process.popen.wait(60) == 0


# --- the parts -----------------------------------------------------------------------------------


def ended(program: str, timeout: float = 60.0) -> tuple[int, str, str]:
    """A small program to its end, with the handlers set first: code, output, errors."""
    begin = "import os, signal, sys, time, weakref\nfrom overlay import signals\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + "signals.install()\n" + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


DROPPED = """
class Any: ...
def callback(_):
    signal.raise_signal(signal.SIGINT)
    time.sleep(0)
any = Any()
kept = weakref.ref(any, callback)
{mode}
    del any
    print("it goes on")
"""


def test_an_interrupt_that_python_drops_ends_the_process_anyhow() -> None:
    code, out, err = ended(DROPPED.format(mode="with signals.interrupting():"))
    assert (code, out, err) == (130, "", "")
    python = (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.unraisablehook = sys.__unraisablehook__\nif True:"
    )
    code, out, err = ended(DROPPED.format(mode=python))
    assert "it goes on" in out, "the counter-test: Python loses it"
    assert "KeyboardInterrupt" in err


def test_an_interrupt_that_somebody_swallows_ends_the_process_after_a_while() -> None:
    code, out, _ = ended("""
        with signals.interrupting(0.1):
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            while True:
                time.sleep(0.01)
    """)
    assert (code, out) == (143, "interrupted\n")


def test_a_signal_waits_until_a_file_is_whole_and_a_second_one_does_not() -> None:
    once = "with signals.held():\n    signal.raise_signal(signal.SIGTERM)\n    print(1, flush=True)"
    assert ended(once + "\nprint(2)") == (143, "1\n", "")
    twice = once.replace("print", "signal.raise_signal(signal.SIGINT); print")
    assert ended(twice) == (143, "", "")


def test_who_takes_a_signal_goes_on_and_may_settle_the_status() -> None:
    code, out, _ = ended("""
        came = []
        with signals.taken(came.append):
            with signals.held():
                signal.raise_signal(signal.SIGHUP)
                print(came)
            print(came, signals.status(), flush=True)
            signals.settle(0)
        signal.raise_signal(signal.SIGINT)
        print("not reached", flush=True)
    """)
    assert (code, out) == (0, "[]\n[1] 143\n"), "a hangup is as good as SIGTERM"


def test_a_copy_of_the_process_ends_alone() -> None:
    code, out, _ = ended("""
        with signals.taken(lambda _: print("ours", flush=True)):
            if not (child := os.fork()):
                signal.raise_signal(signal.SIGINT)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert (code, out) == (0, "130\n")


def test_the_handlers_are_set_before_anything_heavy_is_imported() -> None:
    """Not even `signal`, `typing` or `contextlib`, by themselves or by what they bring along."""
    program = (
        "import sys\nbefore = set(sys.modules)\n"
        "import overlay.__main__\nfrom overlay import signals\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=True,
    )
    named = set(done.stdout.split())
    assert named == {"overlay", "overlay.__main__", "overlay.signals", "overlay.version"}


def test_the_command_begins_there_too() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"overlay": "overlay.__main__:main"}
