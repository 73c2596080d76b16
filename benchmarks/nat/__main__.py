"""Try every pair of homes, ours and stock aiortc's; exit 1 when a pair does not connect as it must.

Each round has fresh processes, so fresh ports and identities, behind NATs that have forgotten
everything: all tries of a round are between strangers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.nat import counter, hard, mix, rival
from benchmarks.nat.results import Found, Pair, Row, row_of, rows_of, write_page
from benchmarks.report import write_table
from tests.lab.namespaces import why_unavailable
from tests.lab.nat.laboratory import Home, Laboratory
from tests.lab.nat.mesh import ASKED, MATRIX, PAIRS, Mesh, Try, Watch, expected
from tests.lab.nat.wire import Impairment
from tests.lab.nodes import Crew

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "nat.json"
CONDITIONS = ROOT / "benchmarks" / "nat-conditions.json"
MIXED = ROOT / "benchmarks" / "nat-mix.json"
HARD = ROOT / "benchmarks" / "nat-hard.json"
COUNTER = ROOT / "benchmarks" / "nat-counter.json"
PAGE = ROOT / "docs" / "nat.md"
TRIES = 5
WATCHED = 60.0
"""Seconds for which links are watched whose mappings live for three."""
BAD_WAYS = {
    "40 ms": Impairment(latency=0.01),
    "40 ms, 2 % loss": Impairment(latency=0.01, loss=0.02),
    "100 ms, 10 % loss": Impairment(latency=0.025, loss=0.1),
}
"""Round trip between two homes, and the loss on the leg of each."""
SOONEST, SOONEST_RELAYED, LATEST = 0.2, 0.3, 1.0
"""Seconds: medians of direct and of relayed tries, and the 95th percentile of all (bars)."""
Pairs = Sequence[Pair]
T = TypeVar("T")


def say(text: str) -> None:
    """How far it is."""
    print(text, flush=True)


class Bench:
    """The laboratory, with two homes of each kind, and what was found in it."""

    def __init__(self, laboratory: Laboratory, pairs: Pairs) -> None:
        self.laboratory = laboratory
        self.pairs = list(pairs)
        self.kinds = [kind for kind in MATRIX if any(kind in pair for pair in self.pairs)]
        self.publics = [laboratory.public_host() for _ in range(2)]

    def homes(self, impairment: Impairment | None = None) -> dict[tuple[str, int], Home]:
        """Two of each kind, the same ones every time, as if nobody had spoken yet."""
        homes = {
            (kind, nth): self.laboratory.standing(kind, nth, impairment=impairment)
            for kind in self.kinds
            for nth in (0, 1)
        }
        for home in homes.values():
            home.forget()
        return homes

    def mesh6(self, stack: ExitStack) -> Mesh:
        """Two public nodes that listen over IPv6, too."""
        return self.mesh(stack, ipv6=True)

    def mesh(self, stack: ExitStack, *settings: str, ipv6: bool = False) -> Mesh:
        """Two public nodes, for as long as the stack is open; all nodes are told this."""
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="nat-"))
        crew = stack.enter_context(Crew(Path(directory)))
        told = tuple(part for each in settings for part in ("--set", each))
        mesh = Mesh(self.laboratory, crew, settings=told)
        for host in self.publics:
            mesh.public(host=host, ipv6=ipv6)
        return mesh

    def round(
        self,
        pairs: Pairs,
        impairment: Impairment | None = None,
        settings: Sequence[str] = (),
    ) -> list[Try]:
        """One try of each of these pairs, by nodes that have just been started."""
        with ExitStack() as stack:
            mesh = self.mesh(stack, *settings)
            homes = self.homes(impairment)
            nodes = dict(zip(homes, mesh.members(list(homes.values()), *ASKED), strict=True))
            counted = impairment is None  # a mebibyte takes its time where much is lost
            return [mesh.attempt(*ends(nodes, pair), counted=counted) for pair in pairs]

    def without(self, setting: str, pairs: Pairs) -> list[Try]:
        """One try of each of these pairs with something switched off."""
        say(f"{setting}: {len(pairs)} pairs")
        return self.round(pairs, settings=(setting,))

    def ours(self, tries: int) -> Found:
        """So many rounds, and as many again of what has failed."""
        found: Found = {pair: [] for pair in self.pairs}
        for number in range(2 * tries):
            again = [pair for pair in self.pairs if not all(each.connected for each in found[pair])]
            chosen = self.pairs if number < tries else again
            if not chosen:
                break
            say(f"round {number + 1}: {len(chosen)} pairs")
            for tried in self.round(chosen):
                found[tried.a, tried.b].append(tried)
                if tried.way != expected(tried.a, tried.b):
                    say(f"  {tried}")
        return found

    def stock(self, tries: int) -> Found:
        """The same by stock aiortc, with one of our nodes for its STUN server."""
        found: Found = {}
        with ExitStack() as stack:
            mesh = self.mesh(stack)
            server = mesh.publics[0].ready["listen"][0]
            rivals = {key: rival.Rival(home, server) for key, home in self.homes().items()}
            for each in rivals.values():
                stack.callback(each.close)
            for pair in self.pairs:
                found[pair] = rival.tries(mesh, *ends(rivals, pair), tries)
                connected = sum(each.connected for each in found[pair])
                say(f"stock {pair}: {connected} of {len(found[pair])}")
        return found

    def short_lived(self) -> dict[str, Any]:
        """Links of all kinds whose mappings live for three seconds, for a minute."""
        with ExitStack() as stack:
            mesh = self.mesh(stack)
            seen = Watch(mesh, self.kinds, WATCHED).end()
        states: list[str] = seen["states"]
        up = sum(state in ("up", "suspect") for state in states) / len(states)
        links = len(self.kinds) * (len(self.kinds) - 1) // 2
        return {"links": links, "seconds": WATCHED, "up": up, "ended": len(seen["ended"])}

    def one_carrier(self, tries: int) -> list[Row]:
        """Two homes behind one carrier's NAT that turns nothing round."""
        rows = []
        for kind in ("port_restricted", "symmetric_random"):
            carrier = self.laboratory.carrier(kind)
            homes = [self.laboratory.home("port_restricted", carrier=carrier) for _ in range(2)]
            done = []
            for _ in range(tries):
                with ExitStack() as stack:
                    mesh = self.mesh(stack)
                    a, b = mesh.members(homes, *ASKED)
                    done.append(mesh.attempt(a, b, patience=0.0))
            rows.append(row_of((f"behind one {kind} carrier", "the same"), done))
        return rows


def ends(of: Mapping[tuple[str, int], T], pair: Pair) -> tuple[T, T]:
    """The two ends of a pair; of two alike, the second home's is the other one."""
    a, b = pair
    return of[a, 0], of[b, 1 if a == b else 0]


def missed(found: Found) -> list[str]:
    """What is not as it must be: every try connects, by the way that is expected, and soon."""
    said = []
    for pair, tries in found.items():
        ways = {each.way for each in tries}
        if not all(each.connected for each in tries):
            said.append(f"{pair}: {[each.why for each in tries if not each.connected]}")
        elif ways != {expected(*pair)}:
            said.append(f"{pair}: {ways}")
    tried = [each for tries in found.values() for each in tries]
    for way, most in (("direct", SOONEST), ("relayed", SOONEST_RELAYED)):
        taken = [each.seconds for each in tried if each.way == way]
        if taken and statistics.median(taken) > most:
            said.append(f"median of {way} pairs: {statistics.median(taken):.2f} s")
    if sorted(each.seconds for each in tried)[int(0.95 * len(tried))] > LATEST:
        said.append("the 95th percentile")
    return said


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nat", description=__doc__)
    parser.add_argument("--tries", type=int, default=TRIES, help="of each pair (%(default)s)")
    parser.add_argument("--kinds", default=",".join(MATRIX), help="only pairs of these")
    parser.add_argument("--parts", default=",".join((*PARTS, MIX)), help="of %(default)s")
    parser.add_argument("--pairs", type=int, default=mix.PAIRS, help="of the mix (%(default)s)")
    parser.add_argument("--cases", default="", help="only hard cases with this in their names")
    parser.add_argument("--dry", action="store_true", help="print, but write no file")
    return parser.parse_args()


def enter_user_namespace() -> None:
    """Start again under unshare(1) when this user may not make namespaces; once."""
    if why_unavailable() is None or os.environ.get("BENCHMARKS_UNSHARED"):
        return
    os.environ["BENCHMARKS_UNSHARED"] = "1"
    argv = [sys.executable, "-m", "benchmarks.nat", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "-Urn", *argv])


def main() -> int:
    """0 when every pair is as it must be, 1 when one is not, 2 when this cannot run here."""
    told = arguments()
    parts = [part for part in told.parts.split(",") if part != MIX]
    if parts:
        enter_user_namespace()
        if why := why_unavailable():
            say(f"benchmarks: {why}")
            return 2
    wrong = mixed(told) if MIX in told.parts.split(",") else []
    if parts:
        kinds = told.kinds.split(",")
        with Laboratory() as laboratory:
            bench = Bench(laboratory, [pair for pair in PAIRS if set(pair) <= set(kinds)])
            for part in parts:
                wrong += PARTS[part](bench, told)
    if not told.dry:
        write_page(PAGE, read(RESULTS, []), read(CONDITIONS, {}))
        write_table(PAGE, mix.page(read(MIXED, {})), mix.MARK)
        write_table(PAGE, hard.page(read(HARD, {})), hard.MARK)
        write_table(PAGE, counter.page(read(COUNTER, {})), counter.MARK)
    for text in wrong:
        say(f"missed: {text}")
    return 1 if wrong else 0


def ours(bench: Bench, told: argparse.Namespace) -> list[str]:
    """The matrix; what is not as it must be."""
    found = bench.ours(told.tries)
    write(RESULTS, [asdict(row) for row in rows_of(found)], told)
    write(CONDITIONS, read(CONDITIONS, {}) | {"measured": {"ours": stamp()}}, told)
    return missed(found)


def stock(bench: Bench, told: argparse.Namespace) -> list[str]:
    """The rival's."""
    rows = [asdict(row) for row in rows_of(bench.stock(told.tries))]
    write(CONDITIONS, read(CONDITIONS, {}) | {"stock": rows}, told)
    return []


def worse(bench: Bench, told: argparse.Namespace) -> list[str]:
    """Other networks; which pairs did not connect there."""
    found, wrong = dict[str, Any](), list[str]()
    for name, impairment in BAD_WAYS.items():
        say(f"{name}: {len(bench.pairs)} pairs")
        tries = bench.round(bench.pairs, impairment)
        found[name] = [asdict(row_of((each.a, each.b), [each])) for each in tries]
        wrong += [f"{name}: {each}" for each in tries if not each.connected]
    say("mappings of three seconds")
    found["mappings of 3 s"] = bench.short_lived()
    say("behind one carrier")
    found["one carrier"] = [asdict(row) for row in bench.one_carrier(told.tries)]
    write(CONDITIONS, read(CONDITIONS, {}) | found, told)
    return wrong


def counter_tests(bench: Bench, told: argparse.Namespace) -> list[str]:
    """What each technique is for; what is not as it must be."""
    rows = counter.measure(bench.without)
    write(COUNTER, stamp() | {"rows": rows}, told)
    return [each for row in rows for each in row["missed"]]


def hard_cases(bench: Bench, told: argparse.Namespace) -> list[str]:
    """The hard cases; what is not as it must be."""
    tries = min(told.tries, hard.TRIES)
    rows = hard.measure(bench.laboratory, bench.mesh6, tries, told.cases)
    write(HARD, stamp() | {"tries": tries, "rows": hard.told(rows)}, told)
    return [each for row in rows for each in row.missed]


def mixed(told: argparse.Namespace) -> list[str]:
    """The field's mix, which needs no laboratory; what is not as it must be."""
    say(f"mix: {told.pairs} pairs, and as many in the control")
    began_at = time.monotonic()
    found = mix.measure(told.pairs)
    rate = round(2 * told.pairs / (time.monotonic() - began_at) * 60)
    write(MIXED, stamp() | {"worlds_a_minute": rate} | found, told)
    return mix.missed(found)


PARTS = {"ours": ours, "stock": stock, "worse": worse, "counter": counter_tests, "hard": hard_cases}
MIX = "mix"


def stamp() -> dict[str, str]:
    """When this is measured, and of which commit."""
    argv = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return {"date": time.strftime("%Y-%m-%d"), "commit": commit.strip()}


def read(path: Path, otherwise: Any) -> Any:
    """What an earlier part has found."""
    return json.loads(path.read_text()) if path.exists() else otherwise


def write(path: Path, found: Any, told: argparse.Namespace) -> None:
    """Keep what was found, or only print it."""
    if told.dry:
        say(json.dumps(found))
    else:
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
