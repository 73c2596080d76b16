"""M2 as its user sees it: a black-box test for each line of the order that a user can see.

What its views, trees and streams do in detail is tested beside them.
"""

import json
import re
import shlex
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.black_box import (
    LINKS_MOST,
    QUIET,
    failed_up,
    make,
    next_event,
    one_line_error,
    resident,
    sh,
    suite,
)
from tests.lab.nodes import (
    ROOT,
    Crew,
    Json,
    Node,
    Process,
    heard,
    is_connected,
    overlay,
    settled,
    subscribed,
    wait_for,
)

# --- 1. HyParView and Plumtree -------------------------------------------------------------------


def test_a_mesh_of_sixteen_is_no_full_mesh_and_all_hear(crew: Crew) -> None:
    """Sixteen, for a node may keep fourteen links; of twelve nodes one has a use for all others."""
    first = crew.node("n1").up()
    link = first.invite("--members", "1")
    nodes = [first, *(crew.node(f"n{i}").up(join=link) for i in range(2, 17))]
    ears = subscribed(nodes, "news")
    nodes[7].ok("publish", "news", "all sixteen")
    for ear in ears:
        assert heard(ear, "all sixteen")["from"] == nodes[7].peer_id

    def links() -> list[int]:
        counts = [node.json("status")["links"] for node in nodes]
        return counts if max(counts) <= LINKS_MOST else []

    counts = wait_for(links, 60.0, "guests handed on, so that nobody is linked to everybody")
    assert min(counts) >= 1
    assert sum(counts) / 2 < 16 * 15 / 2


def test_messages_larger_than_one_packet_of_control_arrive_whole(line: list[Node]) -> None:
    """From one end of a line to the other, byte for byte, up to the limit, which is stated."""
    first, middle, last = line
    ears = subscribed(line, "big")
    largest = 1_048_576
    for size in (200_000, largest):
        text = "".join(f"{number:07d} é\n" for number in range(size // 11))
        text += "x" * (size - len(text.encode()))
        first.ok("publish", "big", "-", stdin=text)
        for ear in ears:
            message = heard(ear, text, 60.0)
            assert message["from"] == first.peer_id
            assert message["data"] == text
    one_line_error(first.run("publish", "big", "-", stdin="x" * (largest + 1)), str(largest))
    first.ok("publish", "big", "the last")
    for node, ear in zip(line, ears, strict=True):
        lines = [json.loads(ear.out.next(20.0))["data"]]
        assert lines == ["the last"], f"{node.name} heard something twice, or in part"
    assert middle.json("status")["internal_errors"] == 0
    assert last.peer(first) is None, "they are linked: nobody carried anything"


# --- 2. the seeded world -------------------------------------------------------------------------


def test_sim_runs_a_scenario_of_toml_and_says_how_to_replay_a_failure(tmp_path: Path) -> None:
    file, trace = "simulations/first-mesh.toml", str(tmp_path / "trace.jsonl")
    done = overlay("sim", "run", file, "--json", "--trace", trace, timeout=100.0)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    banded = {name for name, each in answer["measures"].items() if each["band"] is not None}
    assert {"reliability", "hops", "degree", "connected", "success_healed"} <= banded
    # A script that knows nothing of overlay finds the same numbers in the trace.
    (found,) = sh(
        sys.executable, "-I", "tests/sim/scenario/recompute.py", trace
    ).stdout.splitlines()
    for name, value in json.loads(found).items():
        assert answer["measures"][name]["value"] == value
    replayed = overlay("sim", "replay", trace, "--json", timeout=100.0)
    assert json.loads(replayed.stdout)["trace_hash"] == answer["trace_hash"]
    # Nobody opens a link by himself: nothing is repaired, and it says so.
    broken = ("sim", "run", file, "--seed", "5", "--set", "links.auto=false")
    done = overlay(*broken, "--json", timeout=100.0)
    line = one_line_error(done, "seed 5", r"at \d+\.\d+ s", "connected is 0", "replay: ", code=1)
    assert json.loads(done.stdout)["ok"] is False
    program, *words = shlex.split(line.partition("replay: ")[2])
    again = overlay(*words, timeout=100.0)
    assert (program, again.returncode, again.stderr) == ("overlay", 1, done.stderr)


# --- 3. streams ----------------------------------------------------------------------------------


READER = """
import hashlib, json, sys, trio, overlay

async def main():
    settings = {"links.auto": False, "links.direct": False}
    link = sys.stdin.readline()
    async with overlay.open_node(
        name="reader", listen="127.0.0.1:0", join=link, settings=settings
    ) as node:
        async with node.accept_streams("file") as arriving:
            print(json.dumps({"peer_id": node.peer_id}), flush=True)
            digest = hashlib.sha256()
            stream = await anext(arriving)
            async with await anext(arriving) as second:
                async for data in second:
                    await second.send_all(data)
            async with stream:
                async for data in stream:
                    digest.update(data)
                await stream.send_all(digest.digest())
            await trio.sleep_forever()

trio.run(main)
"""
"""Leaves its first stream unread until the second has ended."""
WRITER = """
import hashlib, json, sys, trio, overlay

async def main():
    settings = {"links.auto": False, "links.direct": False}
    link = sys.stdin.readline()
    content, said, accepted = bytes(range(256)) * 16384, b"", [0]
    async with overlay.open_node(
        name="writer", listen="127.0.0.1:0", join=link, settings=settings
    ) as node, trio.open_nursery() as nursery:
        while not any(peer.name == "reader" for peer in node.peers(everybody=True)):
            await trio.sleep(0.05)
        before = [peer.name for peer in node.peers()]
        unread = await node.open_stream("reader", "file")

        async def write():
            for start in range(0, len(content), 65536):
                await unread.send_all(content[start:start + 65536])
                accepted[0] = start + 65536
            await unread.send_eof()

        nursery.start_soon(write)
        echoed = b""
        async with await node.open_stream("reader", "file") as second:
            await second.send_all(b"over here")
            while len(echoed) < 9:
                echoed += await second.receive_some()
            stuck_at, rtt = accepted[0], await node.ping("reader")
            await second.send_eof()
            async for data in second:
                echoed += data
        async for data in unread:
            said += data
        told = {"before": before, "after": sorted(peer.name for peer in node.peers())}
        told |= {"echoed": echoed.decode(), "rtt": rtt, "stuck_at": stuck_at, "size": len(content)}
        print(json.dumps({**told, "whole": said == hashlib.sha256(content).digest()}), flush=True)

trio.run(main)
"""
"""Sends 4 MiB that nobody reads yet, meanwhile something else on a second stream, and pings."""


def test_streams_from_programs_reach_peers_that_are_not_linked_yet(crew: Crew) -> None:
    hub = crew.node("hub").up("--set", "links.auto=false")
    link = hub.invite("--members", "1") + "\n"
    programs = []
    try:
        for name, text in (("reader", READER), ("writer", WRITER)):
            file = crew.directory / f"{name}.py"
            file.write_text(text)
            programs.append(Process([sys.executable, str(file)], stdin=link))
            line = programs[-1].out.next(90.0)
    finally:
        for program in programs:
            program.kill()
    told = json.loads(line)
    assert (told["before"], told["after"]) == (["hub"], ["hub", "reader"])
    assert told["echoed"] == "over here"
    assert told["rtt"] > 0
    assert 0 <= told["stuck_at"] <= told["size"] // 4, "credit holds back what nobody reads"
    assert told["whole"], "and in the end it has all come"


# --- 4. the Python API ---------------------------------------------------------------------------


def test_programs_and_their_tests_run_as_the_pages_show() -> None:
    suite("tests/docs/test_docs.py", "python_blocks_run")
    suite("tests/test_testing.py", "the_pages_tests_pass")
    for name in ("programming", "testing"):
        page = (ROOT / "docs" / f"{name}.md").read_text()
        assert re.search(r"^```python", page, re.MULTILINE), "nothing of it would be run"


# --- 5. commands ---------------------------------------------------------------------------------


def test_trace_names_the_nodes_on_the_way(line: list[Node]) -> None:
    a, b, c = line
    wait_for(lambda: a.run("trace", c.peer_id).returncode == 0, 20.0, "the record of C at A")
    traced = a.json("trace", c.peer_id)
    assert set(traced) >= {"hops", "rtt"}
    assert traced["hops"] == [b.peer_id, c.peer_id]
    assert 0 < traced["rtt"] < 10
    b.freeze()
    try:
        assert a.run("trace", c.peer_id, timeout=60.0).returncode == 1
    finally:
        b.thaw()


def test_trace_of_nobody_is_one_line(pair: list[Node]) -> None:
    one_line_error(pair[0].run("trace", "nobody"), "nobody")


# --- 6. documentation ----------------------------------------------------------------------------


def test_state_diagrams_are_generated_from_transition_tables() -> None:
    """What the page draws is what the code goes by: arrow by arrow, and it goes by nothing else."""
    tables = json.loads(sh(sys.executable, "-m", "docs.states").stdout)
    named = {"link", "climb", "sending", "receiving", "agent", "pair", "liveliness"}
    page = (ROOT / "docs" / "states.md").read_text()
    drawn = dict(
        re.findall(r"<!-- generated: states-(\w+) -->\n```mermaid\n(.*?)```", page, re.DOTALL)
    )
    assert drawn.keys() == tables.keys() >= named
    for name, drawing in drawn.items():
        arrows = {
            (here.replace("_", " "), event, there.replace("_", " "))
            for here, there, events in re.findall(
                r"^ +(\w+) --> (\w+): (.+)$", drawing, re.MULTILINE
            )
            for event in events.split(" / ")
        }
        table = tables[name].items()
        assert arrows == {(here, *way) for here, row in table for way in row.items()}, name
        assert len(arrows) >= 4
    suite("tests/core/test_transitions.py", "table or entry or states")


# --- bars ----------------------------------------------------------------------------------------


def test_the_bars_of_streams_and_publishing_are_met() -> None:
    rows = {row["name"]: row for row in json.loads((ROOT / "benchmarks/results.json").read_text())}
    for name in ("stream-throughput", "ping-under-bulk", "publish-fifty", "forwarding-cpu"):
        assert rows[name]["ok"], name


# --- faults --------------------------------------------------------------------------------------


def test_a_node_frozen_for_four_seconds_loses_no_link(pair: list[Node]) -> None:
    first, second = pair
    before = first.json("peers")["since"]
    second.freeze()
    thaw_at = time.monotonic() + 4.0
    try:
        wait_for(lambda: time.monotonic() >= thaw_at, 10.0, "four seconds to pass")
    finally:
        second.thaw()
    assert first.run("ping", second.peer_id).returncode == 0
    assert first.json("peers")["since"] == before


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_twenty_nodes_in_four_processes_survive_two_of_them(crew: Crew) -> None:
    survivors, killed_at = half_of_twenty_killed(crew, {"links.guests": "2s"})
    connected = False
    for number in range(1000):
        connected = connected or is_connected(survivors)
        text = f"news {number}"
        survivors[number % 10].ask("POST", "/publish", {"topic": "news", "data": text})
        patience = time.monotonic() + 0.5
        while len(hearers(survivors, text)) < 10 and time.monotonic() < patience:
            time.sleep(0.02)
        if connected and len(hearers(survivors, text)) == 10:
            break
        assert time.monotonic() < killed_at + 60.0, "they never found each other again"
    assert time.monotonic() < killed_at + 10.0
    assert [node.ask("GET", "/status")["internal_errors"] for node in survivors] == [0] * 10


@pytest.mark.slow
def test_survivors_that_may_open_no_links_stay_apart(crew: Crew) -> None:
    """The counter-test: without repair, those whom only the dead had linked hear nothing."""
    survivors, killed_at = half_of_twenty_killed(crew, {"links.auto": False})
    survivors[0].ask("POST", "/publish", {"topic": "news", "data": "anybody?"})
    wait_for(lambda: time.monotonic() > killed_at + 10.0, 20.0, "the time that they had to repair")
    assert not is_connected(survivors)
    assert len(hearers(survivors, "anybody?")) < 10


def half_of_twenty_killed(crew: Crew, settings: Json) -> tuple[list[Node], float]:
    """Twenty nodes by fives, joined through the first; two processes killed, and when."""
    groups = [crew.together([f"n{i}" for i in range(5)], settings=settings)]
    link = groups[0][0].ready["invite"]
    for first in (5, 10, 15):
        names = [f"n{i}" for i in range(first, first + 5)]
        groups.append(crew.together(names, join=link, settings=settings))
    nodes = [node for group in groups for node in group]
    assert is_connected(nodes)
    if settings.get("links.auto", True):
        wait_for(
            lambda: max(len(node.neighbours()) for node in nodes) <= LINKS_MOST,
            90.0,
            "guests handed on",
        )
        nodes[7].ask("POST", "/publish", {"topic": "news", "data": "all twenty"})
        wait_for(lambda: len(hearers(nodes, "all twenty")) == 20, 20.0, "everybody hears")
    killed_at = time.monotonic()
    for doomed in (groups[0], groups[2]):
        doomed[0].kill()
    return groups[1] + groups[3], killed_at


def hearers(nodes: list[Node], text: str) -> set[str]:
    """The names of those nodes that have heard this publication."""
    processes = {id(node.process): node.process for node in nodes if node.process}.values()
    events = [json.loads(line) for process in processes for line in list(process.out.all)]
    return {event["name"] for event in events if event.get("data") == text}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_node_frozen_for_twenty_seconds_is_done_without_and_comes_back(crew: Crew) -> None:
    first = crew.node("a").up()
    link = first.invite("--members", "1")
    frozen, *others = (crew.node(name).up(join=link) for name in "bcde")
    awake = [first, *others]
    settled([frozen, *awake])
    ears = subscribed([frozen, *awake], "news")
    frozen.freeze()
    thaw_at = time.monotonic() + 20.0
    try:
        wait_for(
            lambda: not any(frozen.peer_id in node.neighbours() for node in awake),
            15.0,
            "its neighbours go on without it",
        )
        others[0].ok("publish", "news", "around it")
        for ear in ears[1:]:
            assert heard(ear, "around it")["from"] == others[0].peer_id
        wait_for(lambda: time.monotonic() >= thaw_at, 30.0, "twenty seconds to pass")
    finally:
        frozen.thaw()
    awake_ids = {node.peer_id for node in awake}
    wait_for(lambda: frozen.neighbours() == awake_ids, 20.0, "it is back, without an invite")
    wait_for(
        lambda: all(frozen.peer_id in node.neighbours() for node in awake), 20.0, "as all see it"
    )
    others[1].ok("publish", "news", "good morning")
    frozen.ok("publish", "news", "what did I miss?")
    for ear in ears:
        heard(ear, "good morning")
    for ear in ears[1:]:
        heard(ear, "what did I miss?")
    assert [node.json("status")["internal_errors"] for node in (frozen, *awake)] == [0] * 5


OLD, BOTH, NEW = "1 1", "1 2", "2 2"


def of_wire(crew: Crew, name: str, versions: str) -> Node:
    """A node that speaks these wire versions."""
    if versions == OLD:
        return crew.node(name)
    build = [sys.executable, "-m", "tests.builds.other_wire"]
    return crew.node(name, argv=build, env={"WIRE_RANGE": versions})


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("middle", [OLD, BOTH])
def test_a_node_of_wire_one_to_two_talks_to_one_of_wire_one(crew: Crew, middle: str) -> None:
    """Each joins by the other's invite, and links to the other through the mesh."""
    b = of_wire(crew, "b", middle).up(*QUIET)
    link = b.invite("--members", "1")
    a = of_wire(crew, "a", BOTH if middle == OLD else OLD).up(*QUIET, join=link)
    c = of_wire(crew, "c", middle).up(*QUIET, join=link)
    b.wait_peers(2)
    wait_for(lambda: a.run("trace", c.peer_id).returncode == 0, 20.0, "the record of C at A")
    a.ok("connect", c.peer_id)
    for here, there in ((a, c), (c, a), (a, b), (b, a)):
        here.ok("ping", there.peer_id)
    ears = subscribed([a, b, c], "news")
    for node in (a, b, c):
        node.ok("publish", "news", f"from {node.name}")
        for ear in ears:
            assert heard(ear, f"from {node.name}")["from"] == node.peer_id


@pytest.mark.parametrize(("host", "joiner"), [(OLD, NEW), (NEW, OLD), (BOTH, "3 3")])
def test_nodes_without_a_common_wire_version_both_say_so(
    crew: Crew, host: str, joiner: str
) -> None:
    here, there = of_wire(crew, "a", host).up(), of_wire(crew, "b", joiner)
    line = failed_up(there, join=here.invite())
    (told,) = (text for text in here.log.splitlines() if "hello_refused" in text)
    for versions in (host, joiner):
        named = "[{}, {}]".format(*versions.split())
        assert named in line, line
        assert named in told, told
    assert here.peers() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("fault", "costs"),
    [
        ("floods_pings", None),
        ("floods_records", None),
        ("floods_gossip", None),  # what it costs: tests/core/test_limits.py, in virtual time
        ("opens_streams", r"peer_down.*protocol"),
        ("half_message", None),
        ("deaf", None),
    ],
)
def test_a_misbehaving_peer_costs_itself_only(crew: Crew, fault: str, costs: str | None) -> None:
    """Whatever it does to the hub: others' links stay, pings come back, memory stays bounded.

    `costs` is what the hub's log says of the link that broke a rule.
    """
    hub = crew.node("hub").up()
    link = hub.invite("--members", "1")
    one, two = innocent = [crew.node(name).up(join=link) for name in ("one", "two")]
    settled([hub, *innocent])
    (ear,) = subscribed([two], "news")
    since = [linked_since(node, [hub, *innocent]) for node in (hub, *innocent)]
    before = resident(hub)
    build = [sys.executable, "-m", "tests.builds.misbehaving", fault, str(crew.directory / "bad")]
    bad = crew.node("bad")
    bad.process = Process(build, stdin=link + "\n")
    next_event(bad.process, "ready", 60.0)
    pings = 0
    while not any('"done"' in line for line in bad.process.out.all):
        for here, there in ((hub, one), (one, hub), (two, one)):
            assert here.ask("POST", "/ping", {"peer": there.peer_id})["rtt"] < 10.0
            pings += 1
        if fault == "deaf":
            for _ in range(5):  # somebody has to say something that it does not take
                one.ask("POST", "/publish", {"topic": "long", "data": "x" * 50_000})
        assert bad.process.popen.poll() is None, bad.log
    assert pings >= 3, "it was over before anybody could look"
    assert next_event(bad.process, "done", 5.0)["count"] > 0
    assert [linked_since(node, [hub, *innocent]) for node in (hub, *innocent)] == since
    one.ok("publish", "news", "still here")
    assert heard(ear, "still here")["from"] == one.peer_id
    assert [node.json("status")["internal_errors"] for node in (hub, *innocent)] == [0, 0, 0]
    assert resident(hub) - before <= 48 * 1024 * 1024
    if costs is not None:
        hub.logs(costs)
    crew.node("late").up(join=link)


def linked_since(node: Node, others: list[Node]) -> dict[str, float]:
    """Since when a node has been linked to each of these others."""
    ids = {other.peer_id for other in others}
    peers = node.ask("GET", "/peers")["peers"]
    return {peer["peer_id"]: peer["since"] for peer in peers if peer["peer_id"] in ids}


# --- done when -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("demo", ["demo", "demo-firewalled"])
def test_demos_hold_with_sixteen_nodes_that_are_no_full_mesh(demo: str) -> None:
    """And outlive their creator. What people see is on stderr here."""
    done = sh(*make(demo, "ARGS=--json"), timeout=220)
    assert done.returncode == 0, done.stderr
    for word in ("negotiated", "via", "hops", "mesh"):
        assert word in done.stderr.lower()
    told = json.loads(done.stdout)
    first, *others = names = [f"n{number}" for number in range(1, 17)]
    assert told["nodes"] == names
    links = [set(link["ends"]) for link in told["links"]]
    assert len(links) < 16 * 15 // 2
    assert reached(first, links) == set(names)
    assert len(told["trace"]["hops"]) >= 2
    assert told["connected"]["negotiated"] == "mesh"
    assert told["connected"]["hops"] >= 2
    assert told["connected"]["via"] in names
    assert told["heard"] == [names, others], "once all, and once all but the creator"
    assert reached(others[0], list(map(set, told["links_after"]))) == set(others)
    if demo == "demo-firewalled":
        inner = [link for link in told["links"] if first not in link["ends"]]
        assert {link["negotiated"] for link in inner} == {"mesh"}


def reached(start: str, links: list[set[str]]) -> set[str]:
    """Who can be reached over these links."""
    found = {start}
    while fresh := {name for link in links if link & found for name in link} - found:
        found |= fresh
    return found


@pytest.mark.parametrize(
    "demo",
    [("mesh.py", "--stop-others", "--nodes", "10"), ("firewalled.py", "--star", "--nodes", "4")],
    ids=" ".join,
)
def test_demos_fail_when_nobody_goes_between(demo: tuple[str, ...]) -> None:
    """The counter-test: all others stopped while two connect; all links hang on the creator."""
    script, *arguments = demo
    done = sh(sys.executable, f"demos/{script}", *arguments, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "it did not hold" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
