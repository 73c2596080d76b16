"""Eight nodes on two LANs through half an hour of other people's faults, or through less of it.

Four of them stay. They publish by turns and must hear everything once; around them one node after
the other is killed and comes back, and of those that stay one has its clock stepped, one loses an
interface for a while, and one hears nothing from another for a while.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.lab.lan import Host, Lan
from tests.lab.nodes import Crew, Node, Process, settled, wait_for

STAYING, COMING_AND_GOING = 4, 4
PUBLICATIONS_A_SECOND = 5
KILL_INTERVAL = 10.0
AWAY = 5.0
"""Seconds until who was killed comes back."""
CLOCK_STEP = 120.0
"""Seconds by which a clock jumps ahead."""
LAST_WORDS = 30.0
"""Seconds after the last publication in which everything must have arrived."""
TOPIC = "endurance"
DEAF = """
table inet deaf {
  chain input { type filter hook input priority -10; ip saddr { %s, %s } drop; }
}
"""


@dataclass
class Outcome:
    """What the nodes that stayed came to, by name."""

    sent: list[str] = field(default_factory=list)
    heard: dict[str, Counter[str]] = field(default_factory=dict)
    memory: dict[str, list[int]] = field(default_factory=dict)
    """Resident bytes, looked at every ten seconds."""
    descriptors: dict[str, list[int]] = field(default_factory=dict)
    internal_errors: dict[str, int] = field(default_factory=dict)
    kills: int = 0

    def lost(self) -> dict[str, list[str]]:
        """What each should have heard and did not."""
        return {
            name: missing
            for name, counts in self.heard.items()
            if (missing := [text for text in self.sent if not counts[text]])
        }

    def doubled(self) -> dict[str, list[str]]:
        """What each heard more than once."""
        return {
            name: twice
            for name, counts in self.heard.items()
            if (twice := [text for text, count in counts.items() if count > 1])
        }


class Endurance:
    """The nodes, the hosts that they run on, and the timetable of what happens to them."""

    def __init__(self, crew: Crew, lans: tuple[Lan, Lan]) -> None:
        self._clock = crew.directory / "clock"
        self._hosts = [self._host(lans) for _ in range(STAYING + COMING_AND_GOING)]
        self._nodes = [
            crew.node(f"n{number}", enter=host.enter) for number, host in enumerate(self._hosts)
        ]
        # Behind until told: the step is one ahead.
        stepped = self._nodes[1]
        stepped.argv = (sys.executable, "-m", "tests.builds.clock_behind")
        stepped.env = {"CLOCK_BEHIND_SECONDS": str(CLOCK_STEP), "CLOCK_SET": str(self._clock)}
        self._staying = self._nodes[:STAYING]
        self._ears: dict[str, Process] = {}
        self._link = ""
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._outcome = Outcome()

    def _host(self, lans: tuple[Lan, Lan]) -> Host:
        host = lans[0].host(firewall=None)
        number = len(lans[0].hosts)
        lans[1].plug(host, "eth1", str(lans[1].network[number]))
        return host

    def run(self, seconds: float) -> Outcome:
        """Form a mesh, let it live for so long, and count."""
        first = self._nodes[0].up(listen=None)
        self._link = first.invite("--members", "1")
        for node in self._nodes[1:]:
            node.up(listen=None, join=self._link)
        settled(self._nodes)
        for node in self._staying:
            self._ears[node.name] = node.subscribe(TOPIC)
            self._outcome.memory[node.name], self._outcome.descriptors[node.name] = [], []
        self._wait_for_ears()
        self._plan(seconds)
        self._live(seconds)
        self._collect()
        return self._outcome

    def _wait_for_ears(self) -> None:
        """All subscriptions are live once all have heard one of the trials."""

        def all_hear() -> bool:
            self._publish(self._nodes[0], "trial")
            time.sleep(0.5)
            return all(ear.out.all for ear in self._ears.values())

        wait_for(all_hear, 30.0, "every subscription to hear something")

    # --- the timetable ---------------------------------------------------------------------------

    def _plan(self, seconds: float) -> None:
        now = time.monotonic()

        def at(share: float, action: Callable[[], None]) -> None:
            self._due.append((now + share * seconds, action))

        at(0.2, self._clock.touch)
        at(0.3, self._lose_interface)
        at(0.6, self._regain_interface)
        at(0.5, self._deafen)
        at(0.8, lambda: self._hosts[3].nft("delete table inet deaf"))
        kill_at, number = now + KILL_INTERVAL / 2, 0
        while kill_at < now + seconds - KILL_INTERVAL / 2:
            victim = self._nodes[STAYING + number % COMING_AND_GOING]
            self._due.append((kill_at, partial(self._kill, victim)))
            self._due.append((kill_at + AWAY, partial(victim.start, listen=None)))
            kill_at, number = kill_at + KILL_INTERVAL, number + 1
        self._due += [(now + at, self._look) for at in range(0, int(seconds), 10)]
        self._due.sort(key=lambda each: each[0])

    def _lose_interface(self) -> None:
        self._hosts[2].ip("addr flush dev eth0")

    def _regain_interface(self) -> None:
        self._hosts[2].ip(f"addr add {self._hosts[2].address}/24 dev eth0")

    def _deafen(self) -> None:
        """The fourth hears nothing more from the first, on either LAN."""
        self._hosts[3].nft(DEAF % (self._hosts[0].address, "10.78.0.1"))

    def _kill(self, victim: Node) -> None:
        victim.kill()
        self._outcome.kills += 1

    def _look(self) -> None:
        for node in self._staying:
            assert node.process is not None
            process = Path(f"/proc/{node.process.popen.pid}")
            pages = int((process / "statm").read_text().split()[1])
            self._outcome.memory[node.name].append(pages * os.sysconf("SC_PAGE_SIZE"))
            self._outcome.descriptors[node.name].append(len(os.listdir(process / "fd")))

    # --- the life --------------------------------------------------------------------------------

    def _live(self, seconds: float) -> None:
        began_at = time.monotonic()
        number = 0
        while (now := time.monotonic()) < began_at + seconds:
            while self._due and self._due[0][0] <= now:
                self._due.pop(0)[1]()
            if now >= began_at + number / PUBLICATIONS_A_SECOND:
                text = f"number {number}"
                self._publish(self._staying[number % STAYING], text)
                self._outcome.sent.append(text)
                number += 1
            else:
                time.sleep(0.01)
        for _, action in self._due:  # nobody stays killed or deaf
            action()

    def _publish(self, node: Node, text: str) -> None:
        node.ask("POST", "/publish", {"topic": TOPIC, "data": text})

    def _collect(self) -> None:
        outcome, deadline = self._outcome, time.monotonic() + LAST_WORDS
        while time.monotonic() < deadline:
            for name, ear in self._ears.items():
                texts = (json.loads(line)["data"] for line in list(ear.out.all))
                outcome.heard[name] = Counter(text for text in texts if text != "trial")
            if not outcome.lost():
                break
            time.sleep(0.2)
        for node in self._staying:
            outcome.internal_errors[node.name] = node.json("status")["internal_errors"]
