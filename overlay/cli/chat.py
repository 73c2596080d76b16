"""`overlay chat`: a room in the terminal; plain lines, or JSON, when something else reads it."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from overlay.cli.options import Word, asks_node, print_json
from overlay.cli.tables import short
from overlay.errors import CommandFailed, Failure, OverlayError
from overlay.node.client import Client, Stream
from overlay.node.words import plain

PROMPT = "> "
ECHO_TIMEOUT = 3.0
"""Seconds for the last lines from a pipe to appear in the room before we leave it (guess)."""
HELP = "say something, or: /who  who is here, /quit  leave (as Ctrl-C does)"


@click.command()
@click.argument("topic", type=Word(), default="lobby")
@asks_node
def chat(data_dir: Path, as_json: bool, topic: str) -> None:
    """Chat with whoever is on TOPIC, which is `lobby` unless named.

    Shows who comes and goes. Reads lines from standard input; those of a pipe are said one by one,
    and their end leaves the chat. With --json, a line for all that happens. Ctrl-C leaves the chat,
    not the node.
    """
    node = Client(data_dir)
    with node.stream(f"/chat?topic={quote(topic, safe='')}") as stream:
        conversation = Conversation(node, topic, stream, as_json=as_json)
        try:
            conversation.run()
        except KeyboardInterrupt:
            conversation.check()
        finally:
            conversation.leave()


class Conversation:
    """Two threads: one prints what the room says, the main one reads what we say."""

    def __init__(self, node: Client, topic: str, stream: Stream, *, as_json: bool) -> None:
        self._node = node
        self._topic = topic
        self._stream = stream
        self._as_json = as_json
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        self._me = ""
        self._present: dict[str, str] = {}
        self._echoes = threading.Semaphore(0)
        self._said = 0
        self._ended: OverlayError | OSError | None = None
        self._entered = threading.Event()
        self._is_leaving = False
        self._thread = threading.Thread(target=self._listen, name="room", daemon=True)

    def run(self) -> None:
        """Until the input ends or somebody interrupts; whoever says nothing goes on listening."""
        self._thread.start()
        self._entered.wait()
        while (line := self._read()) is not None:
            if line.strip() == "/quit":
                return
            self._obey(line.strip())
        if not self._is_terminal and not self._said:
            threading.Event().wait()
        for _ in range(0 if self._is_terminal else self._said):
            self._echoes.acquire(timeout=ECHO_TIMEOUT)

    def leave(self) -> None:
        """End the room's thread; it must not hold the connection when that is closed."""
        self._is_leaving = True
        self._stream.end()
        self._thread.join()

    def check(self) -> None:
        """Raise what ended the room, unless it was the user."""
        if self._ended is not None:
            raise self._ended

    # --- what we say ---------------------------------------------------------------------------

    def _read(self) -> str | None:
        if not self._is_terminal:
            return sys.stdin.readline() or None
        import readline  # noqa: F401 (gives `input` its line editing)

        try:
            return input(PROMPT)
        except EOFError:
            return None

    def _obey(self, line: str) -> None:
        """Say a line, or do what it commands."""
        if line == "/who":
            names = [self._me, *(self._title(peer) for peer in self._present)]
            self._print(f"* here: {', '.join(names)}")
        elif line.startswith("/") and self._is_terminal:
            self._print(f"* {HELP}")
        elif line:
            self._node.post("/publish", {"topic": self._topic, "data": line})
            self._said += 1

    # --- what the room says --------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            for row in self._stream.until(None):
                self._show(row)
            self._ended = CommandFailed(
                Failure.CLOSED, "the chat has ended: the node is leaving, or gone"
            )
        except (OverlayError, OSError) as error:  # OSError: nobody reads what we print
            self._ended = error
        self._entered.set()
        if self._is_leaving:
            return
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)  # it waits for a line that nobody may write

    def _show(self, row: dict[str, Any]) -> None:
        if self._as_json:
            print_json(row)
        else:
            self._tell(row)
        if row["event"] == "entered":
            self._me, self._id = plain(row["name"]), row["peer_id"]
            self._entered.set()
        elif row["event"] == "said" and row["peer_id"] == self._id:
            self._echoes.release()

    def _tell(self, row: dict[str, Any]) -> None:
        peer = row["peer_id"]
        match row["event"]:
            case "entered":
                where, who = plain(row["topic"]), plain(row["name"])
                print(f"in {where} as {who}; Ctrl-C leaves", file=sys.stderr, flush=True)
            case "here":
                self._present[peer] = row["name"]
                self._print(f"* {self._title(peer)} is here")
            case "gone":
                title = self._title(peer)
                self._present.pop(peer, None)
                self._print(f"* {title} {'left' if row['why'] == 'left' else 'went quiet'}")
            case "said" if not (self._is_terminal and peer == self._id):
                self._print(f"{self._title(peer, row['name'])}: {plain(row['text'])}")

    def _title(self, peer: str, name: str = "") -> str:
        """A name, and the beginning of the peer id where the name alone could be somebody else."""
        name = plain(self._present.get(peer) or name)
        others = [plain(each) for known, each in self._present.items() if known != peer]
        is_ours = name == self._me and peer != self._id
        if name and name not in others and not is_ours:
            return name
        return f"{name} ({short(peer)})" if name else short(peer)

    def _print(self, line: str) -> None:
        if not self._is_terminal:
            print(line, flush=True)
            return
        import readline

        typed = readline.get_line_buffer()
        sys.stdout.write(f"\r\x1b[K{line}\n{PROMPT}{typed}")
        sys.stdout.flush()
