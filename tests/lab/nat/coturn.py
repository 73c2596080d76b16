"""coturn's RFC 5780 server and its `turnutils_natdiscovery`: a second opinion, nothing of ours.

It gives a verdict on mapping, filtering and hairpinning; of ports it tells the numbers. Each
question is a process, and an unanswered one takes it six seconds.
"""

import re
from types import TracebackType
from typing import Self

from tests.lab.nat.kinds import Dependence
from tests.lab.nat.machines import Host
from tests.lab.nat.stun import PORTS, Port, Verdict
from tests.lab.nodes import Failed, Process, wait_for

NEEDS = "turnserver", "turnutils_natdiscovery"
_VERDICT = re.compile(r"NAT with (.*) Dependent (?:Mapping|Filtering)!|NAT with (Endpoint In)")
_WORDS = {"Address and Port": Dependence.ADDRESS_PORT, "Address": Dependence.ADDRESS}
_PORTS = re.compile(r"UDP reflexive addr: \S+:(\d+)\n.*Local addr: : \S+:(\d+)")
_TURNED_ROUND = "a successful hairpinning"


class Coturn:
    """`turnserver` as a STUN server on a host with two addresses; ended with its block."""

    def __init__(self, host: Host) -> None:
        self.address = host.addresses[0]
        options = "--stun-only --no-auth --no-cli --no-tcp --no-tls --no-dtls --userdb=/dev/null"
        addresses = [f"--listening-ip={address}" for address in host.addresses]
        ports = f"--listening-port={PORTS[0]} --alt-listening-port={PORTS[1]}"
        quiet = "--log-file=stdout --simple-log --pidfile=/dev/null --min-port=60000"
        argv = ["turnserver", "-n", *options.split(), *ports.split(), *quiet.split(), *addresses]
        self._process = Process(argv, enter=host.enter)
        with Port(host) as port:
            server = self.address, PORTS[0]
            wait_for(lambda: port.ask(server, tries=1), 30.0, "coturn answers", 0.05)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()


class Discovery:
    """Three processes that ask from a host, all at once; `result` waits for them."""

    def __init__(self, host: Host, server: str) -> None:
        self._processes = {
            option: Process(["turnutils_natdiscovery", option, server], enter=host.enter)
            for option in ("-m", "-f", "-H")
        }

    def result(self) -> Verdict:
        """What it found, at most a few seconds after it was asked."""
        texts = {option: _output(process) for option, process in self._processes.items()}
        numbers = _PORTS.findall(texts["-m"])
        if not numbers:
            return Verdict()
        return Verdict(
            _dependence(texts["-m"]),
            _dependence(texts["-f"]),
            all(mapped == local for mapped, local in numbers),
            _TURNED_ROUND in texts["-H"],
        )


def _output(process: Process) -> str:
    process.popen.wait(60.0)
    process.out.finish()
    return "".join(process.out.all)


def _dependence(text: str) -> Dependence:
    found = _VERDICT.search(text)
    if found is None:
        raise Failed(f"no verdict in: {text}")
    return Dependence.INDEPENDENT if found[2] else _WORDS[found[1]]
