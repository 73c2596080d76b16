"""`overlay chat`: a room in the terminal; plain lines, or JSON, when something else reads it."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from overlay.cli import prompt
from overlay.cli.options import Word, asks_node, print_json
from overlay.cli.waiting import Client, tell
from overlay.errors import CommandFailed, Failure, OverlayError
from overlay.names import plain, titled
from overlay.node import client

ECHO_TIMEOUT = 3.0
"""Seconds for the last lines from a pipe to appear in the room before we leave it (guess)."""
HELP = "say something, or: /who  who is here, /quit  leave (as Ctrl-C does)"


@click.command()
@click.argument("topic", type=Word(), default="lobby")
@asks_node
def chat(data_dir: Path, as_json: bool, topic: str) -> None:
    """Chat with whoever is on TOPIC, which is `lobby` unless named.

    Shows who comes and goes. Reads lines from standard input, says them one by one, and leaves at
    its end, once they are in the room. With --json, a line for all that happens. Ctrl-C leaves the
    chat, not the node.
    """
    with Client(data_dir).stream(f"/chat?topic={quote(topic, safe='')}") as stream:
        conversation = Conversation(client.Client(data_dir), topic, stream, as_json=as_json)
        with conversation.lines:
            try:
                conversation.run()
            except KeyboardInterrupt:
                conversation.check()
            finally:
                conversation.leave()


class Conversation:
    """Two threads: one prints what the room says, the main one reads what we say."""

    def __init__(
        self, node: client.Client, topic: str, stream: client.Stream, *, as_json: bool
    ) -> None:
        self._node = node
        self._topic = topic
        self._stream = stream
        self._as_json = as_json
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        self.lines = prompt.lines(is_terminal=self._is_terminal)
        self._me = ""
        self._present: dict[str, str] = {}
        self._echoes = threading.Semaphore(0)
        self._said = 0
        self._ended: OverlayError | OSError | None = None
        self._entered = threading.Event()
        self._is_leaving = False
        self._thread = threading.Thread(target=self._listen, name="room", daemon=True)

    def run(self) -> None:
        """Until the input ends or somebody interrupts."""
        self._thread.start()
        self._entered.wait()
        while (line := self.lines.read()) is not None:
            if line.strip() == "/quit":
                return
            self._obey(line.strip())
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

    def _obey(self, line: str) -> None:
        """Say a line, or do what it commands."""
        if line == "/who":
            me = f"{self._me} (this node)" if self._has_namesake() else self._me
            names = [me, *(self._title(peer) for peer in self._present)]
            self.lines.print(f"* here: {', '.join(names)}")
        elif line.startswith("/") and self._is_terminal:
            self.lines.print(f"* {HELP}")
        elif line:
            self._node.post("/publish", {"topic": self._topic, "data": line})
            self._said += 1

    def _has_namesake(self) -> bool:
        return any(name == self._me for peer, name in self._present.items() if peer != self._id)

    # --- what the room says --------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            for row in self._stream.until(None, self._on_silence):
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
                self.lines.print(f"* {self._title(peer)} is here")
            case "gone":
                title = self._title(peer)
                self._present.pop(peer, None)
                self.lines.print(f"* {title} {'left' if row['why'] == 'left' else 'went quiet'}")
            case "said" if not (self._is_terminal and peer == self._id):
                self.lines.print(f"{self._title(peer, row['name'])}: {plain(row['text'])}")

    def _on_silence(self, text: str) -> None:
        if self._is_terminal:
            self.lines.print(f"* {text}")
        else:
            tell(text)

    def _title(self, peer: str, name: str = "") -> str:
        """A name, and the beginning of the peer id where the name alone could be somebody else."""
        name = plain(self._present.get(peer) or name)
        others = [plain(each) for known, each in self._present.items() if known != peer]
        is_ours = name == self._me and peer != self._id
        if name and name not in others and not is_ours:
            return name
        return titled(peer, name)
