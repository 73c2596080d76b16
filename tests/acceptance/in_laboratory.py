"""What M6's acceptance tests share: pairs and streams in the laboratory, and its one run of all."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from tests.acceptance.black_box import make, sh
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.mesh import ASKED, MATRIX, PAIRS, Mesh, Watch, carrying
from tests.lab.nodes import Crew, Json, Node

WORST = "symmetric_random", "address_mapped"
"""A pair that plain ICE never connects."""


SHORT_LIVED = "port_restricted", "port_restricted_hashed", "symmetric_random"
"""Kinds whose links, direct and relayed, outlive mappings of three seconds."""


STOCK = """
import asyncio, sys
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

async def main():
    servers = [RTCIceServer(urls=f"stun:{sys.argv[1]}")]
    pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
    pc.createDataChannel("any")
    await pc.setLocalDescription(await pc.createOffer())
    print(*[line for line in pc.localDescription.sdp.splitlines() if "srflx" in line], flush=True)
    await pc.close()

asyncio.run(main())
"""

CUT = """
table inet cut
delete table inet cut
table inet cut {
  chain forward {
    type filter hook forward priority -10
    %s
  }
}
"""


def pair_in(mesh: Mesh, kinds: tuple[str, str] = WORST, **options: Any) -> tuple[Node, Node]:
    """A node in a standing home of each kind, linked to the public ones and to nobody else."""
    homes = [mesh.laboratory.standing(kind, nth, **options) for nth, kind in enumerate(kinds)]
    a, b = mesh.members(homes, *ASKED)
    return a, b


class Carrying:
    """A stream of so many bytes that goes on beside the test."""

    def __init__(self, a: Node, b: Node, size: int) -> None:
        self.rows: list[Json] = []
        self.times: list[float] = []
        """When a row came: one a mebibyte."""
        self._thread = threading.Thread(target=self._run, args=(a, b, size), daemon=True)
        self._thread.start()

    def _run(self, a: Node, b: Node, size: int) -> None:
        for row in carrying(a, b, size, 110.0):
            self.rows.append(row)
            self.times.append(time.monotonic())

    def has_sent(self, size: int) -> bool:
        return any(row.get("bytes", 0) >= size for row in self.rows)

    def end(self, timeout: float = 110.0) -> Json:
        self._thread.join(timeout)
        assert self.rows, "nothing came of it"
        return self.rows[-1]


def once(factory: pytest.TempPathFactory, name: str, made: Callable[[], Any]) -> Any:
    """What was made, by this process or by another one of the same run."""
    root = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    path = root / f"{name}.json"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_text(json.dumps(made()))
    return json.loads(path.read_text())


def demonstration(factory: pytest.TempPathFactory) -> Json:
    """What the one run of ``make demo-nat`` told."""

    def made() -> Json:
        done = sh(*make("demo-nat", "ARGS=--json"), timeout=140)
        assert done.returncode == 0, done.stdout + done.stderr
        told: Json = json.loads(done.stdout)
        return told

    return dict(once(factory, "demonstration", made))


def try_every_pair(factory: pytest.TempPathFactory) -> Json:
    """Two homes of each kind, all nodes up at once; no pair has exchanged more than a knock before.

    Beside it, links of homes whose mappings live for three seconds are watched for a minute.
    """
    tries = []
    with Laboratory() as laboratory, Crew(factory.mktemp("m")) as crew:
        mesh = Mesh(laboratory, crew)
        mesh.public()
        mesh.public()
        watch = Watch(mesh, SHORT_LIVED, 60.0)
        homes = [laboratory.home(kind) for kind in (*MATRIX, *MATRIX)]
        nodes = mesh.members(homes, *ASKED)
        first, second = (dict(zip(MATRIX, half, strict=True)) for half in _halves(nodes))
        for a, b in PAIRS:
            pair = first[a], second[b] if a == b else first[b]
            before = mesh.between(*pair)
            tries.append({**asdict(mesh.attempt(*pair)), "before": before})
        return {"tries": tries, "watched": watch.end()}


def _halves(nodes: list[Node]) -> tuple[list[Node], list[Node]]:
    return nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]


def cut(laboratory: Laboratory, *pairs: tuple[str, str]) -> None:
    """Nothing goes between these addresses any more; all others are whole again."""
    ways = [way for pair in pairs for way in (pair, pair[::-1])]
    drops = [f"ip saddr {source} ip daddr {to} drop" for source, to in ways]
    laboratory.core.nft(CUT % "\n    ".join(drops))


def doctor(node: Node, until: Callable[[Json], bool] = bool, patience: float = 30.0) -> Json:
    """What `overlay doctor --json` says once that is so, or at the end of patience."""
    deadline = time.monotonic() + patience
    while not until(told := node.json("doctor")) and time.monotonic() < deadline:
        time.sleep(0.5)
    return told


def doctor_of(a: Node, b: Node) -> Json:
    """What `overlay doctor PEER --json` says; the exit code says how the peer is reached."""
    done = a.run("doctor", b.peer_id, "--json")
    told: Json = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) == 1
    codes = {None: 2, "relayed": 1}
    assert done.returncode == codes.get(told["path"], 0), done
    assert told.keys() == {"path", "relay", "rungs"}
    assert all(
        rung.keys() == {"rung", "outcome", "seconds", "why", "technique"} for rung in told["rungs"]
    )
    return told


def carried_by(mesh: Mesh, node: Node, public: Node) -> int:
    """Bytes that the laboratory has counted between a node's home and a public node's host."""
    host = public.ready["listen"][0].split(":")[0]
    home = mesh.homes[node.name]
    return sum(
        flow.bytes
        for flow in mesh.laboratory.flows()
        if host in (flow.source, flow.destination)
        and (home.owns(flow.source) or home.owns(flow.destination))
    )
