"""What the command line imports before it knows what it is to do: next to nothing."""

import json
import subprocess
import sys

import pytest

from tests.lab.nodes import environment

SLOW = frozenset(
    {
        *("asyncio", "concurrent.futures", "email", "http.client", "importlib.metadata", "logging"),
        *("sqlite3", "ssl", "tempfile", "tomllib", "urllib.request", "xml"),
    }
)
"""Modules of the standard library that take milliseconds each."""
OURS = frozenset({"overlay", "click"})
PROGRAM = (
    "import json, sys\nfrom overlay.cli.main import run\n"
    "code = run(sys.argv[1:])\n"
    "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
)


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends; nothing of this test's environment."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment({"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def bare() -> set[str]:
    """What an interpreter of this environment has imported before it runs a line."""
    program = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment({"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_needs_click_and_what_starts_fast(word: str) -> None:
    found = imported(word) - bare()
    roots = {name.partition(".")[0] for name in found}
    assert roots - OURS <= sys.stdlib_module_names, "a library is imported before it is needed"
    assert not found & SLOW


def test_a_command_that_needs_more_is_seen(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The counter-test: who asks a node speaks HTTP."""
    found = imported("status", "--data-dir", str(tmp_path_factory.mktemp("nobody")))
    assert "http.client" in found & SLOW
