"""What the shell completes: commands, options, and peers where a node runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from overlay.cli.completion import SHELLS, words
from overlay.names import short_id
from tests.lab.nodes import OVERLAY, Node, environment, overlay

pytestmark = pytest.mark.slow


def path_with_overlay(directory: Path) -> dict[str, str]:
    """An environment in which `overlay` is a command of that name, as a shell asks for it."""
    (directory / "bin").mkdir(exist_ok=True)
    command = directory / "bin" / "overlay"
    command.write_text(f'#!/bin/sh\nexec {" ".join(OVERLAY)} "$@"\n')
    command.chmod(0o755)
    env = environment()
    return {**env, "PATH": f"{command.parent}:{env['PATH']}"}


def completed(line: str, directory: Path) -> list[str]:
    """What bash offers after this line, by the printed script."""
    program = (
        'eval "$(overlay completion bash)"\n'
        'line=$1 COMP_WORDS=($1); [[ "$line" == *" " ]] && COMP_WORDS+=("")\n'
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        "compopt() { :; }\n"  # only within a completion of an interactive shell
        '_overlay_completion overlay\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", line],
        env=path_with_overlay(directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_and_options_are_completed(tmp_path: Path) -> None:
    assert completed("overlay pi", tmp_path) == ["ping"]
    assert completed("overlay sim re", tmp_path) == ["replay"]
    assert completed("overlay ping --until", tmp_path) == ["--until-direct"]


def test_peers_are_completed_by_name_and_id(pair: list[Node], tmp_path: Path) -> None:
    a, b = pair
    here = f"--data-dir {a.directory}"
    for line in (f"overlay ping {here} ", f"overlay peers {here} --sdp "):
        assert completed(line, tmp_path) == ["b"]
    for beginning, whole in (("12D3", b.peer_id), (short_id(b.peer_id)[:5], short_id(b.peer_id))):
        assert completed(f"overlay connect {here} {beginning}", tmp_path) == [whole]
    assert completed(f"overlay trace {here} c", tmp_path) == []


def test_without_a_node_there_are_no_peers_and_no_complaints(tmp_path: Path) -> None:
    assert completed(f"overlay ping --data-dir {tmp_path / 'none'} ", tmp_path) == []


def test_a_name_that_a_shell_would_obey_is_not_offered() -> None:
    rows = [
        {"peer_id": f"12D3KooW{number}aaaaaaaaaaaa", "name": name}
        for number, name in enumerate(
            ("bob", "twin", "twin", "", "$(reboot)", "a b", "*", "-c", "ж-2", "x\ny")
        )
    ]
    offered = dict(words(rows, ""))
    ids = {short_id(row["peer_id"]): row["name"] for row in rows}
    assert [word for word in offered if word not in ids] == ["bob", "ж-2"]
    assert len(offered) == len(rows)
    assert {told for word, told in offered.items() if word in ids} == {"", "twin"}
    assert dict(words(rows, "0")) == {"0aaaaaaa": "bob"}
    assert len(words(rows, "12D3")) == len(rows)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_is_one_that_its_shell_reads(shell: str, tmp_path: Path) -> None:
    """By the shell itself, where it is installed."""
    done = overlay("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_OVERLAY_COMPLETE={shell}_complete" in done.stdout
    (tmp_path / "script").write_text(done.stdout)
    if found := shutil.which(shell):
        subprocess.run([found, "-n", str(tmp_path / "script")], check=True, timeout=60)


def test_another_shell_is_a_mistake() -> None:
    done = overlay("completion", "tcsh")
    assert done.returncode == 2
    assert "bash" in done.stderr
