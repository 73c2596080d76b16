"""The rows about streams and publications: they run for real, and measure what they claim."""

import re
import subprocess
import sys

import pytest

from benchmarks import stock
from benchmarks.cases import files, forwarding, start
from benchmarks.cases.table import MEASURES
from benchmarks.peer import ROOT

ROWS = (
    "stream-throughput",
    "ping-under-bulk",
    "publish-fifty",
    "files",
    "files-memory",
    "words",
    "forwarding-cpu",
    "relay-forwarding",
    "relay-ping",
    "relay-stream",
)


@pytest.mark.parametrize("name", ROWS)
def test_the_bars_of_streams_and_publishing_have_a_row(name: str) -> None:
    assert name in [measure.name for measure in MEASURES]


def test_the_rivals_candidates_are_looked_for_where_the_path_begins() -> None:
    line = "a=candidate:0d43 1 udp 2130706431 198.18.0.1 41000 typ host"
    moved = stock.readdressed(f"a=mid:0\r\n{line}\r\na=end\r\n", ["192.0.2.7", 9])
    there = "a=candidate:0d43 1 udp 2130706431 192.0.2.7 9 typ host"
    assert moved == f"a=mid:0\r\n{there}\r\na=end\r\n"


def test_a_copy_without_history_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="no commit 00000000 to compare with"):
        with forwarding.tree_of("00000000"):
            pass


@pytest.mark.slow
def test_a_small_file_yields_the_figures_of_the_large_one() -> None:
    figures = files.transfer(size=4 << 20)
    assert figures["rate"] > 0
    assert 0 <= figures["memory"] < 200


@pytest.mark.slow
def test_the_commands_that_only_print_are_timed() -> None:
    assert start.words()[start.WORDS.name] > 0


@pytest.mark.needs("unshare", "ip")
@pytest.mark.netns
@pytest.mark.slow
def test_a_run_on_the_lossy_path_yields_figures_for_both_sides() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "ping", "--runs", "1", "--dry"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert re.search(r"`ping-under-bulk` \|[^|]*\| [\d.]+ x idle ping \| [\d.]+", done.stdout), (
        done.stdout + done.stderr
    )
