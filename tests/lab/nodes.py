"""A node as a process, driven as a user drives it: by the command line and JSON, nothing else."""

import contextlib
import ctypes
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from overlay.node.directory import socket_address

ROOT = Path(__file__).resolve().parents[2]
OVERLAY = (sys.executable, "-m", "overlay")
"""The ordinary build; `tests.builds` has others."""
START_TIMEOUT = 60.0
"""Seconds for one of many processes to come up on a loaded machine (measured: sixteen that start at
once on two cores, beside sixteen other busy processes, take 30)."""

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
Json = dict[str, Any]
Enter = Callable[[], None]
"""What a child does between fork and exec, e.g. enter a network namespace."""
T = TypeVar("T")


class Failed(AssertionError):
    """A node did not do, or not in time, what was expected of it."""


def die_with_parent() -> None:
    """In a child before exec: end when the thread that forked us ends (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for(found: Callable[[], T], timeout: float, what: str, interval: float = 0.1) -> T:
    """The first true value of `found()`; `Failed` naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"not within {timeout:g} s: {what} (last: {value!r})")
        time.sleep(interval)


class Lines:
    """The lines of a pipe, collected as they come; reading never blocks the writer."""

    def __init__(self, pipe: IO[str]) -> None:
        self.all: list[str] = []
        self._fresh: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._collect, args=(pipe,), daemon=True)
        self._thread.start()

    def _collect(self, pipe: IO[str]) -> None:
        with pipe, contextlib.suppress(ValueError):
            for line in pipe:
                self.all.append(line)
                self._fresh.put(line)
        self._fresh.put(None)

    def next(self, timeout: float) -> str:
        """The next unread line; TimeoutError, or EOFError when the pipe has ended."""
        try:
            line = self._fresh.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no line within {timeout:g} s") from None
        if line is None:
            self._fresh.put(None)
            raise EOFError("the process has closed its output")
        return line

    def finish(self, timeout: float = 5.0) -> None:
        """Wait until the pipe has ended and all its lines are in `all`."""
        self._thread.join(timeout)


class Process:
    """A child with its output collected, in a process group of its own; ended with its owner."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        enter: Enter | None = None,
        env: dict[str, str] | None = None,
        stdin: str | None = None,
        is_open: bool = False,
    ) -> None:
        """`is_open`: after `stdin`, its standard input says nothing and does not end."""

        def before_exec() -> None:
            die_with_parent()
            if enter is not None:
                enter()

        self.popen = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if is_open or stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(env),
            process_group=0,
            preexec_fn=before_exec,  # noqa: PLW1509 (it takes no lock)
        )
        assert self.popen.stdout is not None
        assert self.popen.stderr is not None
        self.out, self.err = Lines(self.popen.stdout), Lines(self.popen.stderr)
        if stdin is not None:
            assert self.popen.stdin is not None
            self.popen.stdin.write(stdin)
            self.popen.stdin.flush()
            if not is_open:
                self.popen.stdin.close()

    @property
    def log(self) -> str:
        """All that it wrote to stderr so far."""
        return "".join(self.err.all)

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to it and what it started; wait until it is gone and its pipes are closed."""
        self._signal_group(signal.SIGKILL)
        self.popen.wait()
        if self.popen.stdin is not None:
            self.popen.stdin.close()
        self.out.finish()
        self.err.finish()

    def end(self, timeout: float = 30.0) -> int:
        """SIGINT as from Ctrl-C, to it and what it started; wait for its exit code."""
        self._signal_group(signal.SIGINT)
        return self.popen.wait(timeout)

    def _signal_group(self, number: int) -> None:
        if self.popen.poll() is None:
            os.killpg(self.popen.pid, number)


class Node:
    """One data directory, the node process that runs on it, and the commands that speak to it."""

    def __init__(
        self,
        directory: Path,
        *,
        argv: Sequence[str] = OVERLAY,
        enter: Enter | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.name = directory.name
        self.argv, self.enter, self.env = tuple(argv), enter, env
        self.process: Process | None = None
        self.subscriptions: list[Process] = []
        self.ready: Json = {}

    def start(
        self, *args: str, join: str | None = None, listen: str | None = "127.0.0.1:0"
    ) -> Process:
        """Run `up` and return at once; an invite goes in by stdin."""
        argv = [*self.argv, "up", "--data-dir", str(self.directory), "--name", self.name, "--json"]
        argv += ["--listen", listen] if listen else []
        argv += ["--join", "-"] if join is not None else []
        stdin = None if join is None else join + "\n"
        self.process = Process([*argv, *args], enter=self.enter, env=self.env, stdin=stdin)
        return self.process

    def wait_ready(self, timeout: float = START_TIMEOUT) -> "Node":
        """Wait for the first line of `up --json`."""
        assert self.process is not None
        try:
            self.ready = json.loads(self.process.out.next(timeout))
        except (TimeoutError, EOFError) as error:
            self.process.err.finish(1.0)
            raise Failed(f"{self.name}: {error}\n{self.process.log}") from None
        assert self.ready["event"] == "ready"
        return self

    def up(self, *args: str, join: str | None = None, listen: str | None = "127.0.0.1:0") -> "Node":
        """Run `up` and wait until it is ready."""
        self.start(*args, join=join, listen=listen)
        return self.wait_ready()

    @property
    def peer_id(self) -> str:
        return str(self.ready["peer_id"])

    @property
    def log(self) -> str:
        """What the running process has logged so far."""
        return self.process.log if self.process else ""

    def logs(self, pattern: str, timeout: float = 15.0) -> str:
        """What matches in its log, as soon as it does: a node's lines reach us a moment later."""
        found = wait_for(
            lambda: re.search(pattern, self.log), timeout, f"{self.name} logs {pattern!r}"
        )
        assert found is not None
        return found.group()

    def run(
        self, *args: str, stdin: str | None = None, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """`overlay ARGS` for this data directory, to its end."""
        return overlay(
            *args, "--data-dir", str(self.directory), stdin=stdin, timeout=timeout, enter=self.enter
        )

    def ok(self, *args: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """As `run`, and it must exit 0; its stdout."""
        done = self.run(*args, stdin=stdin, timeout=timeout)
        if done.returncode:
            raise Failed(f"{self.name}: overlay {args} exits {done.returncode}\n{done.stderr}")
        return done.stdout

    def json(self, *args: str) -> Json:
        """The one JSON object that a command prints."""
        answer: Json = json.loads(self.ok(*args, "--json"))
        return answer

    def peers(self) -> list[Json]:
        """The lines of `overlay peers --json`."""
        return [json.loads(line) for line in self.ok("peers", "--json").splitlines()]

    def peer(self, other: "Node") -> Json | None:
        """Our line for a peer, if we are linked to it."""
        found = [line for line in self.peers() if line["peer_id"] == other.peer_id]
        assert len(found) <= 1, found
        return found[0] if found else None

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """What `overlay` asks over the control socket, without the start of a command each time."""
        connection = http.client.HTTPConnection("node", timeout=30.0)
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(30.0)
            with socket_address(self.directory) as address:
                sock.connect(address)
            connection.sock = sock
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer: Json = json.loads(response.read())
        if response.status != http.HTTPStatus.OK:
            error = answer.get("error", {})
            raise Failed(f"{self.name}: {path}: {error.get('code')}: {error.get('text')}")
        return answer

    def neighbours(self) -> set[str]:
        """The peer ids that `overlay peers` lists, sooner."""
        return {peer["peer_id"] for peer in self.ask("GET", "/peers")["peers"]}

    def invite(self, *args: str) -> str:
        return str(self.json("invite", *args)["link"])

    def wait_peers(self, count: int, timeout: float = 30.0) -> None:
        """Wait, by `overlay wait`, until at least `count` links are up."""
        try:
            self.ok("wait", "--peers", str(count), timeout=timeout)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name}: fewer than {count} links, {timeout:g} s") from None

    def subscribe(self, topic: str) -> Process:
        """Start `overlay subscribe TOPIC --json`; wait with `heard`."""
        argv = [*OVERLAY, "subscribe", topic, "--json", "--data-dir", str(self.directory)]
        process = Process(argv, enter=self.enter)
        self.subscriptions.append(process)
        return process

    def freeze(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        assert self.process is not None
        self.process.kill()

    def close(self) -> None:
        for process in [*self.subscriptions, *([self.process] if self.process else [])]:
            process.kill()


class Crew:
    """Nodes under one directory, all of them gone when the block ends."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[Node] = []

    def node(
        self,
        name: str,
        *,
        argv: Sequence[str] = OVERLAY,
        enter: Enter | None = None,
        env: dict[str, str] | None = None,
    ) -> Node:
        """A node with an empty data directory; not yet running."""
        node = Node(self.directory / name, argv=argv, enter=enter, env=env)
        self.nodes.append(node)
        return node

    def together(
        self, names: Sequence[str], *, join: str | None = None, settings: Json | None = None
    ) -> list[Node]:
        """Several nodes that live in one process, ready; see `tests.builds.five_nodes`."""
        argv = [sys.executable, "-m", "tests.builds.five_nodes", str(self.directory), *names]
        argv += ["--settings", json.dumps(settings or {})]
        nodes = [self.node(name) for name in names]
        stdin = None if join is None else join + "\n"
        process = Process([*argv, *(["--join"] if join is not None else [])], stdin=stdin)
        for node in nodes:
            node.process = process
        for node in nodes:
            node.wait_ready()
        return nodes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            node.close()


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Ours without any overlay setting, with the repository importable."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OVERLAY_")}
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OVERLAY_CONFIG": os.devnull}
    return {**kept, **ours, **(extra or {})}


def overlay(
    *args: str,
    stdin: str | None = None,
    timeout: float = 60.0,
    enter: Enter | None = None,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`overlay ARGS` to its end."""
    return subprocess.run(
        [*OVERLAY, *args],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=environment(env),
        preexec_fn=enter,
        check=False,
    )


def heard(subscription: Process, data: str, timeout: float = 20.0) -> Json:
    """The next message of a subscription that says `data`; others before it are skipped."""
    deadline = time.monotonic() + timeout
    while True:
        line = subscription.out.next(max(0.0, deadline - time.monotonic()))
        message: Json = json.loads(line)
        if message.get("data") == data:
            return message


def settled(nodes: Sequence[Node], timeout: float = 40.0) -> None:
    """Wait until every node is linked to every other."""
    for node in nodes:
        node.wait_peers(len(nodes) - 1, timeout)


def is_connected(nodes: Sequence[Node]) -> bool:
    """Whether these nodes' links make them one component, each with at least one link to them."""
    ids = {node.peer_id for node in nodes}
    links = {node.peer_id: node.neighbours() & ids for node in nodes}
    reached, to_visit = set[str](), [nodes[0].peer_id]
    while to_visit:
        here = to_visit.pop()
        if here not in reached:
            reached.add(here)
            to_visit += [peer for peer in ids if peer in links[here] or here in links[peer]]
    return reached == ids and all(links.values())


def subscribed(nodes: Sequence[Node], topic: str, timeout: float = 30.0) -> list[Process]:
    """Subscribe at every node, and return once each subscription is live."""
    subscriptions = [node.subscribe(topic) for node in nodes]
    for node, subscription in zip(nodes, subscriptions, strict=True):
        deadline = time.monotonic() + timeout
        while not _probe(node, topic, subscription):
            if time.monotonic() > deadline:
                raise Failed(f"{node.name}: the subscription never came alive")
    return subscriptions


def _probe(node: Node, topic: str, subscription: Process) -> bool:
    """Publish at the node itself; whether its own subscription delivers that."""
    probe = f"probe {os.urandom(6).hex()}"
    node.ok("publish", topic, probe)
    with contextlib.suppress(TimeoutError):
        heard(subscription, probe, 1.0)
        return True
    return False
