"""M4 as its user sees it: the house can be read from its layout, and it says so when it is broken.

Each claim about structure has its counter-test: the fault is planted in a clone, and the project's
own checks refuse the clone.
"""

import ast
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.black_box import make, sh
from tests.lab.nodes import OVERLAY, ROOT, Crew, environment, wait_for

ROOMS = {
    "wire", "ice", "endpoint", "link", "stream", "nat", "routing", "gossip", "membership",
    "connect", "admission",
}  # fmt: skip
"""The packages of the core, by the names of the protocols."""
WALKS = (
    "A datagram in",
    "A publication",
    "An offer through the mesh",
    "A stream write",
    "An invite redeemed",
    "A scenario run",
)
CHANGES = (
    "NAT behaviour classifier",
    "low-TTL checks",
    "circuit's datagrams",
    "TURN allocation",
    "port-mapping client",
    "certificate chain",
    "revocation",
    "mDNS announcement",
    "file transfer",
    "browser's signed record",
)
ROWS = (
    "dial", "one hop", "stream", "small messages", "memory a link", "forwarding",
    "events a second at 1,000 nodes",
)  # fmt: skip


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or a higher one."""
    marks, rest = re.split(
        rf"^(#+) {re.escape(heading)}.*\n", text, maxsplit=1, flags=re.MULTILINE
    )[1:]
    return re.split(rf"^#{{1,{len(marks)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def imports(root: Path) -> dict[str, set[str]]:
    """Every import of every module, inside functions and for type checkers, too."""
    names = {}
    for path in (root / "overlay").rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    arrows: dict[str, set[str]] = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=aliases):
                    found = [alias.name for alias in aliases]
                case ast.ImportFrom(module=str(module), names=aliases, level=0):
                    inner = [f"{module}.{alias.name}" for alias in aliases]
                    found = [each if each in names else module for each in inner]
                case _:
                    continue
            arrows[name].update(each for each in found if each in names and each != name)
    return arrows


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """What is left when whatever imports nothing, or nothing but such, is taken away."""
    left = {name: set(targets) for name, targets in arrows.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """The committed tree in another folder, checked by this environment's tools."""
    target = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True)
    yield target
    shutil.rmtree(target)


def refused(clone: Path, *argv: str) -> str:
    """What a check of the clone says when it fails; it must."""
    env = environment({"PYTHONPATH": str(clone)})
    done = subprocess.run(
        argv, cwd=clone, env=env, capture_output=True, text=True, timeout=300.0, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    return said


def house_of(clone: Path) -> tuple[str, ...]:
    return (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/structure",
        "tests/test_style.py",
    )


# --- 1. the rooms --------------------------------------------------------------------------------


def test_the_core_has_a_room_for_each_protocol() -> None:
    core = ROOT / "overlay" / "core"
    rooms = {path.parent.name for path in core.glob("*/__init__.py")}
    assert rooms >= ROOMS
    assert {path.name for path in core.glob("*.py")} <= {
        *("__init__.py", "overlay.py", "context.py", "events.py", "types.py", "timers.py"),
        *("snapshots.py", "limits.py", "addresses.py"),
    }
    for part in ("sim/network", "sim/checks", "sim/scenario", "sim/report", "sim/sweep"):
        assert (ROOT / "overlay" / part / "__init__.py").is_file()
    for part in ("udp", "dtls", "sctp", "memory"):
        assert (ROOT / "overlay" / "transport" / part / "__init__.py").is_file()
    for room in ROOMS:
        assert (ROOT / "tests" / "core" / room).is_dir(), f"no tests for {room}"


def test_no_module_is_in_a_circle() -> None:
    arrows = imports(ROOT)
    assert len(arrows) > 100
    assert circle(arrows) == []
    arrows["overlay.core.timers"].add("overlay.core.overlay")
    assert "overlay.core.timers" in circle(arrows), "this check cannot fail"


def test_an_arrow_up_is_refused(clone: Path) -> None:
    plant(clone, "overlay/core/wire/messages.py", "import overlay.core.gossip.plumtree")
    assert "overlay.core.wire" in refused(clone, str(Path(sys.executable).parent / "lint-imports"))


def test_the_architecture_walks_through_the_rooms_in_order() -> None:
    text = page("architecture.md")
    for walk in WALKS:
        named = re.findall(r"`([\w/]+\.py)`", section(text, walk))
        assert len(named) >= 4, walk
        for name in named:
            assert (ROOT / "overlay" / name).is_file(), f"{walk}: {name}"


def test_ten_changes_to_come_have_one_room_each() -> None:
    rows = section(page("architecture.md"), "Where the next changes belong")
    for change in CHANGES:
        (row,) = [line for line in rows.splitlines() if change in line]
        rooms = re.findall(r"`(overlay/[\w/]+?/?)(?:\w+\.py)?`", row)
        assert len(rooms) == 1, row


# --- 2. what moving does not mend ----------------------------------------------------------------


def test_every_point_of_the_plan_is_marked_done_or_departed_from() -> None:
    text = page("decisions/0028-the-house.md")
    for number in range(1, 13):
        (row,) = re.findall(rf"^\| {number} \|.*$", text, re.MULTILINE)
        assert re.search(r"\| (done|departed)\b", row), row
    assert re.search(r"0028-the-house\.md", page("decisions/README.md"))


def test_the_clock_of_sctp_is_handed_in() -> None:
    """A step of the wall clock must not touch a round-trip time."""
    for path in (ROOT / "overlay" / "transport").rglob("*.py"):
        assert not re.search(r"\btime\.time\(|^import time$", path.read_text(), re.MULTILINE), path


def test_a_join_interrupted_before_it_is_ready_ends_in_130(crew: Crew) -> None:
    """It says goodbye, and that it came to nothing: 0 would say that the node had been one."""
    first = crew.node("a").up()
    link = first.invite()
    first.freeze()
    late = crew.node("b")
    process = late.start(join=link)
    socket = late.directory / "control.sock"
    wait_for(socket.exists, 30.0, "the dials are out")
    process.signal(signal.SIGINT)
    assert process.popen.wait(30) == 130
    process.out.finish()
    assert process.out.all in ([], ['{"event": "left"}\n'])
    first.thaw()


# --- 3. the test run -----------------------------------------------------------------------------


def test_long_runs_are_recorded_with_their_commit() -> None:
    text = page("soak.md")
    assert re.search(r"\b\d+ passed", text)
    (commit, *_) = re.findall(r"\b[0-9a-f]{7,40}\b", text)
    assert sh("git", "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0
    assert re.search(r"\b2026-\d\d-\d\d\b", text)


def test_coverage_and_soak_are_targets_of_their_own_and_ci_counts() -> None:
    targets = sh("make", "help").stdout
    for target in ("make test", "make quick", "make coverage", "make soak", "make check"):
        assert re.search(rf"^ *{target} ", targets, re.MULTILINE), target
    ci = (ROOT / ".ci" / "run").read_text()
    assert {"make check", "make wheel", "make coverage", "make test"} <= set(ci.splitlines())


@pytest.mark.soak
@pytest.mark.timeout(1500)
def test_a_fresh_clone_passes_its_checks(clone: Path) -> None:
    """With this environment's libraries; `.ci/run` does the same with none."""
    for target, within in (("check", 300.0), ("quick", 1000.0)):
        done = subprocess.run(
            make(target),
            cwd=clone,
            env=environment({"PYTHONPATH": str(clone)}),
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


# --- 4. counter-tests for structure --------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "fault", "says"),
    [
        (
            "overlay/core/overlay.py",
            "def reach(o: Overlay) -> None:\n    o._routing.counters.sent = 1",
            "assigns",
        ),
        (
            "overlay/core/overlay.py",
            "def reach(o: Overlay) -> None:\n    o._connecting.by_peer.clear()",
            "mutates",
        ),
        (
            "overlay/core/timers.py",
            "def late() -> None:\n    import overlay.core.gossip.plumtree",
            "layer",
        ),
        (
            "overlay/node/control.py",
            "def code(why: str) -> int:\n    return 1 if 'expired' in why else 2",
            "text",
        ),
        ("overlay/errors.py", "def cited() -> None:\n    '''As DESIGN says.'''", "DESIGN"),
        ("overlay/core/wire/codec.py", "\n" * 800, "lines"),
        ("overlay/core/wire/small.py", '"""Says nothing of why it is small."""', "alone"),
    ],
    ids=["assign", "mutate", "layer", "text", "cite", "long", "short"],
)
def test_a_planted_fault_is_refused(clone: Path, file: str, fault: str, says: str) -> None:
    plant(clone, file, fault)
    said = refused(clone, *house_of(clone))
    assert says in said
    assert Path(file).name in said


def plant(clone: Path, file: str, fault: str) -> None:
    path = clone / file
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}\n\n{fault}\n" if before else f"{fault}\n")


# --- must reach ----------------------------------------------------------------------------------


def test_the_rows_of_benchmarks_stand_beside_those_of_the_old_commit() -> None:
    rows = section(page("benchmarks.md"), "Before and after the move into rooms")
    for row in ROWS:
        (line,) = [each for each in rows.splitlines() if each.startswith(f"| {row} |")]
        assert re.search(r"\d", line), line


def test_the_command_is_as_it_was() -> None:
    done = sh(*OVERLAY, "--help")
    assert done.returncode == 0
    for command in ("up", "join", "invite", "status", "peers", "connect", "publish", "sim"):
        assert re.search(rf"^  {command}\b", done.stdout, re.MULTILINE), command
