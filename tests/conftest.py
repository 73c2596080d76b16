"""What holds for every test: no silent skips in CI, Hypothesis without chance or deadlines."""

import os
import shutil
import signal
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

SKIPS_FORBIDDEN = os.environ.get("FORBID_SKIPS", "") not in {"", "0"}
"""In CI every test runs: a skip fails, and so does an xfail outside ``tests/acceptance``."""

# Whoever runs us in the background of a shell has SIGINT ignored, and all our children inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "overlay",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("overlay")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a program that this machine lacks, and say which."""
    for marker in item.iter_markers("needs"):
        missing = [program for program in marker.args if shutil.which(program) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}: `make test` as root on Debian installs it")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a forbidden skip or xfail into a failure."""
    report = yield
    expected = hasattr(report, "wasxfail")
    excused = expected and report.nodeid.startswith("tests/acceptance/")
    if SKIPS_FORBIDDEN and report.skipped and not excused:
        _fail(report, getattr(report, "wasxfail", report.longrepr))
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself whole is a skip too."""
    report = yield
    if SKIPS_FORBIDDEN and report.skipped:
        _fail(report, report.longrepr)
    return report


def _fail(report: pytest.TestReport | pytest.CollectReport, why: Any) -> None:
    reason = why[-1] if isinstance(why, tuple) else why
    report.outcome = "failed"
    report.longrepr = f"skips are forbidden here, and this was one: {reason}"
    if hasattr(report, "wasxfail"):
        del report.wasxfail
