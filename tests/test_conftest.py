"""Skips are forbidden in CI: shown on a tree of our own, by a pytest of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
HEAD = "import pytest\n\n"
FILES = {
    "test_skip.py": HEAD + "def test_it():\n    pytest.skip('no such machine')\n",
    "test_module.py": HEAD + "pytest.importorskip('no_such_module')\n",
    "test_xfail.py": HEAD + "@pytest.mark.xfail\ndef test_it():\n    assert False\n",
    "test_needs.py": HEAD + "@pytest.mark.needs('no-such-program')\ndef test_it():\n    pass\n",
    "test_pass.py": "def test_it():\n    pass\n",
    "acceptance/test_awaits.py": HEAD + "@pytest.mark.xfail\ndef test_it():\n    assert False\n",
    "acceptance/test_skips.py": HEAD + "def test_it():\n    pytest.skip('not even here')\n",
}
REASONS = {"test_needs.py": "no-such-program"}
"""A skip from a hook is reported at the hook: known by its reason."""


def outcomes(directory: Path, *, forbidden: bool) -> tuple[dict[str, str], str]:
    """What pytest says of each file below a copy of our conftest, and all that it printed."""
    for name, source in FILES.items():
        path = directory / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    shutil.copy(CONFTEST, directory / "tests" / "conftest.py")
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = needs(*programs)\n")
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider"]
    text = subprocess.run(
        [*command, "--import-mode=importlib", "--continue-on-collection-errors"],
        cwd=directory,
        env={**os.environ, "FORBID_SKIPS": "1" if forbidden else "0", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    summary = text.partition("short test summary info")[2].splitlines()
    named = {name: (f"tests/{name}", REASONS.get(name, name)) for name in FILES}
    return {
        name: line.split()[0]
        for name, marks in named.items()
        for line in summary
        if any(mark in line for mark in marks)
    }, text


@pytest.fixture(scope="module", params=[False, True], ids=["elsewhere", "in CI"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, dict[str, str], str]:
    """One run with skips allowed, one with skips forbidden."""
    found, text = outcomes(tmp_path_factory.mktemp("tree"), forbidden=request.param)
    return request.param, found, text


@pytest.mark.parametrize("name", ["test_skip.py", "test_module.py", "test_needs.py"])
def test_a_skip_is_a_failure_in_ci_alone(run: tuple[bool, dict[str, str], str], name: str) -> None:
    forbidden, found, text = run
    assert found[name] in ({"FAILED", "ERROR"} if forbidden else {"SKIPPED"}), text


def test_an_xfail_is_a_failure_in_ci_alone(run: tuple[bool, dict[str, str], str]) -> None:
    forbidden, found, text = run
    assert found["test_xfail.py"] == ("FAILED" if forbidden else "XFAIL"), text


def test_an_acceptance_test_may_await_its_feature_but_not_skip(
    run: tuple[bool, dict[str, str], str],
) -> None:
    forbidden, found, text = run
    assert found["acceptance/test_awaits.py"] == "XFAIL", text
    assert found["acceptance/test_skips.py"] == ("FAILED" if forbidden else "SKIPPED"), text


def test_what_runs_passes(run: tuple[bool, dict[str, str], str]) -> None:
    _, found, text = run
    assert found["test_pass.py"] == "PASSED", text


def test_the_reason_is_in_the_summary(run: tuple[bool, dict[str, str], str]) -> None:
    forbidden, _, text = run
    assert "no-such-program" in text
    assert ("skips are forbidden here" in text) == forbidden
