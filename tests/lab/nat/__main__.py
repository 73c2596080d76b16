"""By hand: list the kinds, or build homes of some kinds and open a shell in the first one's host.

python -m tests.lab.nat
python -m tests.lab.nat port_restricted symmetric_random --rtt 40 --loss 2
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from tests.lab.namespaces import why_unavailable
from tests.lab.nat.kinds import KINDS, Ipv6
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.machines import Host
from tests.lab.nat.stun import PORTS, Responder, classify
from tests.lab.nat.wire import Impairment
from tests.lab.nodes import ROOT, die_with_parent, environment


class Parser(argparse.ArgumentParser):
    """It says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = Parser(prog="python -m tests.lab.nat", description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="none: list the kinds")
    parser.add_argument("--hosts", type=int, default=1, help="hosts in each home (%(default)s)")
    parser.add_argument("--hairpin", action="store_true", help="the NATs turn packets round")
    parser.add_argument("--userspace", action="store_true", help="the NATs are exact ones")
    parser.add_argument("--timeout", type=int, metavar="SECONDS", help="life of an idle mapping")
    parser.add_argument("--rtt", type=float, default=0.0, metavar="MS", help="between two homes")
    parser.add_argument("--loss", type=float, default=0.0, metavar="PERCENT", help="on each leg")
    parser.add_argument("--ipv6", choices=[*Ipv6], default=Ipv6.NONE, help="(%(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--run", metavar="COMMAND", help="instead of a shell")
    instead.add_argument("--probe", action="store_true", help="only say what RFC 5780 finds")
    told = parser.parse_args(argv)
    for kind in told.kinds:
        if kind not in KINDS:
            parser.error(f"no kind is called {kind}: there are {', '.join(KINDS)}")
    return told


def list_kinds() -> None:
    """One line for each kind."""
    rows: list[tuple[str, ...]] = [("KIND", "MAPPING", "FILTERING", "PORTS", "")]
    for kind in KINDS.values():
        words = (kind.mapping, kind.filtering, kind.ports) if kind.udp else ("-", "-", "-")
        rows.append((kind.name, *words, kind.summary))
    for name, mapping, filtering, ports, summary in rows:
        sys.stdout.write(f"{name:24}{mapping:14}{filtering:14}{ports:12}{summary}\n")


def tell(what: str, host: Host) -> None:
    """Where a host is, and how another terminal gets there."""
    entry = f"nsenter --net=/proc/{os.getpid()}/fd/{host.fd}"
    also = f" {host.address6}" if host.address6 else ""
    sys.stdout.write(f"{what:28}{host.address + also:18}  {entry}\n")


def build(told: argparse.Namespace, laboratory: Laboratory) -> list[Host]:
    """The homes that were asked for; a host of each."""
    impairment = None
    if told.rtt or told.loss:
        impairment = Impairment(latency=told.rtt / 4000, loss=told.loss / 100)
    hosts = list[Host]()
    for kind in told.kinds:
        home = laboratory.home(
            kind,
            told.hosts,
            hairpin=told.hairpin,
            timeout=told.timeout,
            impairment=impairment,
            ipv6=Ipv6(told.ipv6),
            userspace=told.userspace,
        )
        sys.stdout.write(f"{kind:28}{home.wan_address:18}  (its WAN)\n")
        for number, host in enumerate(home.hosts):
            tell(f"  host {number}", host)
        hosts.append(home.host)
    return hosts


def probe(host: Host, responder: Responder) -> None:
    """What a host finds of its NAT."""
    found = classify(host, responder.hosts)
    words = [found.mapping, found.filtering, found.ports, found.hairpin]
    names = ["mapping", "filtering", "ports", "hairpin"]
    told = ", ".join(f"{name} {word}" for name, word in zip(names, words, strict=True))
    sys.stdout.write(f"{host.address:28}{told if found.mapping else 'no UDP'}\n")


def run(argv: list[str], host: Host) -> int:
    """A program in a host, with this terminal, to its end; its exit code."""

    def enter() -> None:
        die_with_parent()
        host.enter()

    sys.stdout.write(f"{shlex.join(argv)} in {host.address}:\n")
    sys.stdout.flush()
    # Ctrl-C is the program's affair, which has got it too. It must not interrupt the waiting, or
    # the exit code may be lost. A handler, unlike SIG_IGN, is not handed on to the program.
    signal.signal(signal.SIGINT, lambda *_: None)
    with subprocess.Popen(
        argv,
        preexec_fn=enter,  # noqa: PLW1509 (it takes no lock)
        cwd=ROOT,
        env=environment(),
    ) as process:
        code = process.wait()
    return 128 - code if code < 0 else code


def main() -> None:
    """List, or build and stay until the shell ends."""
    told = arguments()
    if not told.kinds:
        list_kinds()
        return
    if why := why_unavailable():
        sys.exit(why)
    argv = shlex.split(told.run) if told.run else [os.environ.get("SHELL", "/bin/sh")]
    if shutil.which(argv[0]) is None:
        sys.exit(f"no such program: {argv[0]}")
    code = 0
    with Laboratory() as laboratory:
        try:
            hosts = build(told, laboratory)
        except ValueError as error:
            sys.exit(str(error))
        observer = laboratory.public_host(2)
        tell("on the internet", observer)
        with Responder(observer) as responder:
            sys.stdout.write(f"  STUN (RFC 5780) at {observer.address}:{PORTS[0]}\n")
            if told.probe:
                for host in hosts:
                    probe(host, responder)
            else:
                code = run(argv, hosts[0])
    sys.exit(code)


if __name__ == "__main__":
    main()
