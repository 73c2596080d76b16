"""Our side of the benchmarks: messages of the size that is claimed, and whole nodes that link."""

import re
import subprocess
import sys

import pytest

from benchmarks import node
from benchmarks.peer import ROOT
from overlay.core.wire.codec import decode, encode


@pytest.mark.parametrize("size", [100, 200])
def test_a_small_message_has_the_size_that_is_claimed(size: int) -> None:
    message = node.message_of(size)
    assert len(encode(message)) == size
    assert decode(encode(message)) == message
    assert node.size_of(message) == size


@pytest.mark.needs("unshare", "ip")
@pytest.mark.netns
@pytest.mark.slow
def test_one_run_of_a_row_yields_a_figure_for_both_sides() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "negotiate", "--runs", "1", "--dry"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert re.search(r"\| `mesh-negotiation` \|[^|]*\| [\d.]+ ms \| [\d.]+ ms \|", done.stdout), (
        done.stdout + done.stderr
    )
