"""Build the wheel, install it alone in a new environment, run a scenario, join two nodes.

Then add pytest, as whoever tests a protocol does, and run a test on `world`; and pytest-trio, as
whoever tests a program does, and run a test on `mesh`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALONE = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
"""The environment: this tree must not help the wheel."""
LONG = 300.0
"""Seconds that an installation may take."""
TESTING = ROOT / "docs" / "testing.md"
"""The page whose tests are run."""
SHORT = 30.0
"""Seconds that anything else may take."""


def main() -> None:
    """Exit 0 only if all of it held."""
    with tempfile.TemporaryDirectory(prefix="overlay-wheel-") as name:
        scratch = Path(name)
        overlay = install(build(scratch), scratch)
        version = run(overlay, "--version", cwd=scratch)
        print(f"installed alone: {version.strip()}")
        assert "first-mesh" in run(overlay, "sim", "list", cwd=scratch), "no scenarios"
        run(overlay, "sim", "run", "first-mesh", "--nodes", "8", timeout=LONG, cwd=scratch)
        print("its simulator runs a scenario that came with it")
        join(overlay, scratch)
        print("two nodes of the installed wheel are linked")
        page = re.findall(r"```python test\n(.*?)```", TESTING.read_text(), re.DOTALL)
        world = next(test for test in page if "(world)" in test)
        mesh = next(test for test in page if "(mesh)" in test)
        python = overlay.parent / "python"
        passes(python, world, scratch / "protocol", "pytest")
        print(f"with pytest alone, a test of {len(world.splitlines())} lines passes on a world")
        passes(python, mesh, scratch / "program", "pytest", "pytest-trio")
        print("a program's own test passes on a mesh in memory")


def build(scratch: Path) -> Path:
    """The wheel of this tree."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", scratch, ROOT, timeout=LONG)
    (wheel,) = scratch.glob("*.whl")
    return wheel


def install(wheel: Path, scratch: Path) -> Path:
    """The `overlay` command of a new environment that holds the wheel and what it asks for."""
    environment = scratch / "environment"
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "install"]
    run(*pip, "--constraint", ROOT / "constraints.txt", wheel, timeout=LONG, cwd=scratch)
    return environment / "bin" / "overlay"


def join(overlay: Path, scratch: Path) -> None:
    """Start two nodes on loopback, the second by the first's invite, and wait for the link."""
    first = start(overlay, scratch / "first", None)
    try:
        second = start(overlay, scratch / "second", ready(first)["invite"])
        try:
            ready(second)
            for data in ("first", "second"):
                run(overlay, "wait", "--peers", "1", "--data-dir", scratch / data, cwd=scratch)
            peers = run(overlay, "peers", "--json", "--data-dir", scratch / "second", cwd=scratch)
            assert json.loads(peers.splitlines()[0])["negotiated"] == "invite", peers
        finally:
            stop(second)
    finally:
        stop(first)


def passes(python: Path, test: str, project: Path, *needs: str) -> None:
    """A test as docs/testing.md shows it, in a project that has nothing else; the other way round,
    it fails.
    """
    pip = [str(python), "-m", "pip", "--quiet", "install", "--constraint"]
    run(*pip, ROOT / "constraints.txt", *needs, timeout=LONG, cwd=project.parent)
    project.mkdir()
    file = project / "test_it.py"
    file.write_text(test)
    said = run(python, "-m", "pytest", "-q", timeout=LONG, cwd=project)
    assert "1 passed" in said, said
    file.write_text(test.replace("assert ", "assert not "))
    command = (python, "-m", "pytest", "-q")
    failed = subprocess.run(
        command, cwd=project, env=ALONE, timeout=LONG, stdout=subprocess.DEVNULL, check=False
    )
    assert failed.returncode == 1, "a test that cannot fail"


def start(overlay: Path, data: Path, link: str | None) -> subprocess.Popen[str]:
    """A node in the background; an invite link goes in on stdin, where nobody can read it."""
    command = [str(overlay), "up", "--json", "--listen", "127.0.0.1:0", "--data-dir", str(data)]
    if link is not None:
        command += ["--join", "-"]
    node = subprocess.Popen(
        command,
        cwd=data.parent,
        env=ALONE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert node.stdin is not None
    node.stdin.write(f"{link}\n" if link is not None else "")
    node.stdin.close()
    return node


def ready(node: subprocess.Popen[str]) -> dict[str, str]:
    """The first line that the node prints."""
    assert node.stdout is not None
    event: dict[str, str] = json.loads(node.stdout.readline())
    assert event["event"] == "ready", event
    return event


def stop(node: subprocess.Popen[str]) -> None:
    """End a node, gently if it lets us."""
    node.terminate()
    try:
        node.wait(SHORT)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def run(*command: str | Path, timeout: float = SHORT, cwd: Path = ROOT) -> str:
    """What the command prints; its failure is ours."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=ALONE,
        timeout=timeout,
        text=True,
        stdout=subprocess.PIPE,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    main()
