"""One idea: commands ask their node over its control socket, and notice when it falls silent.

The standard library alone, and of it what a command needs when it asks, so that commands start
fast. A node gives a sign of life twice a second
while it works on a request (`overlay.node.connections`). After `SILENCE` without one it is taken to
be stopped, unless the system says that it has work and merely waits for the processor.
"""

import contextlib
import json
import math
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from overlay.errors import CommandFailed, Failure, NodeSilent, NoNode, UsageError
from overlay.node.directory import (
    STOPPED,
    WORKING,
    absolute,
    holder,
    is_running,
    socket_address,
    states_of,
)

if TYPE_CHECKING:
    from http.client import HTTPResponse

PATIENCE = 90.0
"""Seconds to wait for the answer of a node that lives: longer than any command takes (guess)."""
SILENCE = 3.0
"""Seconds without a sign of life after which a node is said to be stopped."""
KNOCK_INTERVAL = 0.05
"""Seconds between two tries to connect while the node's backlog is full (guess)."""

BAD_REQUEST = 400
"""The user's mistake (RFC 9110 section 15.5.1)."""
ENDED = (Failure.CLOSED, "the node has ended before it answered: look at its log, start it again")
LEAVE_PATIENCE = 15.0
"""Seconds for a node to end (guess); it ends by force after fewer."""

T = TypeVar("T")


class Client:
    """Asks the node that runs on a data directory; NoNode when there is none."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = absolute(data_dir)

    def get(self, path: str, timeout: float | None = PATIENCE) -> Any:
        """The answer to a question."""
        return self._ask("GET", path, None, timeout)

    def post(self, path: str, body: dict[str, Any], timeout: float | None = PATIENCE) -> Any:
        """The result of a command."""
        return self._ask("POST", path, body, timeout)

    @contextlib.contextmanager
    def stream(self, path: str, body: dict[str, Any] | None = None) -> Iterator["Stream"]:
        """Objects as they come, for as long as the context is open; `body`: of a command."""
        method = "GET" if body is None else "POST"
        with self._request(method, path, body, PATIENCE) as (connection, response):
            yield Stream(connection, response)

    def wait_until_gone(self) -> None:
        """Return when the node has let go of its data directory; CommandFailed ``timeout``."""
        deadline = time.monotonic() + LEAVE_PATIENCE
        while is_running(self.data_dir):
            if time.monotonic() > deadline:
                raise CommandFailed(
                    Failure.TIMEOUT, f"the node on {self.data_dir} is still leaving"
                )
            time.sleep(0.02)

    def _ask(self, method: str, path: str, body: Any, timeout: float | None) -> Any:
        from http.client import HTTPException

        try:
            with self._request(method, path, body, timeout) as (_, response):
                content = response.read()
            return json.loads(content)
        except ValueError:
            raise CommandFailed(Failure.PROTOCOL, "what answers is no node of overlay") from None
        except (ConnectionError, HTTPException):
            raise CommandFailed(*ENDED) from None
        except TimeoutError:
            raise self._late() from None

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: Any, timeout: float | None
    ) -> Iterator[tuple["_Line", "HTTPResponse"]]:
        from http import HTTPStatus
        from http.client import HTTPConnection, HTTPException

        connection = HTTPConnection("node")
        connection.auto_open = False
        try:
            try:
                data = None if body is None else json.dumps(body)
                line = connection.sock = _Line(self.data_dir, timeout)
                line.reach()
            except TimeoutError:
                raise self._late() from None
            except OSError as error:
                raise self._no_node(error) from None
            try:
                with contextlib.suppress(BrokenPipeError):  # it may have answered all the same
                    connection.request(method, path, data, {"Content-Type": "application/json"})
                response = connection.getresponse()
                if response.status != HTTPStatus.OK:
                    raise _failure(response.status, response.read())
            except TimeoutError:
                raise self._late() from None
            except (OSError, HTTPException):
                raise CommandFailed(*ENDED) from None
            yield line, response
        finally:
            connection.close()

    def _late(self) -> CommandFailed:
        return CommandFailed(
            Failure.TIMEOUT,
            f"the node on {self.data_dir} lives and does not answer: it has too much to do",
        )

    def _no_node(self, error: Exception) -> Exception:
        if isinstance(error, PermissionError):
            return UsageError(f"{self.data_dir} is another user's: run the command as that user")
        if is_running(self.data_dir):
            return NoNode(
                f"the node on {self.data_dir} is still starting, or just ending: `overlay wait` "
                "waits until it is up, `overlay up` starts another"
            )
        return NoNode(f"no node is running on {self.data_dir}: start one with `overlay up`")


def _failure(status: int, content: bytes) -> Exception:
    """What the node said was wrong, as the error that the command line knows."""
    try:
        error = json.loads(content)["error"]
        error = {key: str(error[key]) for key in ("code", "text")}
    except (ValueError, KeyError, TypeError):
        return CommandFailed(
            Failure.PROTOCOL, f"what answers is no node of overlay (status {status})"
        )
    if status == BAD_REQUEST:
        return UsageError(error["text"])
    return CommandFailed(error["code"], error["text"])


class Stream:
    """The lines of an answer that does not end by itself."""

    def __init__(self, line: "_Line", response: "HTTPResponse") -> None:
        self._line = line
        self._response = response

    def end(self) -> None:
        """Let no more come, and wake the thread that waits for the next object."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)

    def until(
        self, deadline: float | None, on_silence: Callable[[str], None] | None = None
    ) -> Iterator[Any]:
        """Each object, until `deadline` on the monotone clock or the end of the node.

        CommandFailed where the node says so in place of an object. A node that falls silent
        meanwhile is told to `on_silence`, and waited for; without that it is NodeSilent.
        """
        from http.client import HTTPException

        self._line.deadline = deadline
        self._line.on_silence = on_silence
        while deadline is None or time.monotonic() < deadline:
            try:
                line = self._response.readline()
            except (OSError, HTTPException):  # too late, or the node has ended
                return
            if not line:
                return
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:  # half a line: the node has ended
                return
            if "error" in row:
                raise CommandFailed(row["error"]["code"], row["error"]["text"])
            yield row


class _Line(socket.socket):
    """The connection to a node, on which its silence is noticed."""

    def __init__(self, data_dir: Path, timeout: float | None) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._data_dir = data_dir
        self.deadline = None if timeout is None else time.monotonic() + timeout
        """When to give up a node that lives: TimeoutError."""
        self.on_silence: Callable[[str], None] | None = None
        """Takes what is wrong with a node that is to be waited for; NodeSilent without it."""
        self._is_told = False

    def reach(self) -> None:
        """Connect; a node that takes no more connections just now is asked again."""
        silent_at = time.monotonic() + SILENCE
        with socket_address(self._data_dir) as address:
            while True:
                try:
                    return self._attentive(lambda: self.connect(address))
                except BlockingIOError:  # its backlog is full (unix(7))
                    if time.monotonic() > silent_at:
                        self._on_silence()
                    time.sleep(KNOCK_INTERVAL)

    def recv_into(self, *args: Any) -> int:
        """As a socket's, and noticing silence."""
        return self._attentive(lambda: super(_Line, self).recv_into(*args))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As a socket's, and noticing that nothing more is taken."""
        left = memoryview(data).cast("B")
        while left:
            left = left[self._attentive(partial(self.send, left, flags)) :]

    def _attentive(self, operation: Callable[[], T]) -> T:
        """What `operation` on this socket returns, however long it takes while the node lives."""
        while True:
            left = math.inf if self.deadline is None else self.deadline - time.monotonic()
            self.settimeout(max(0.001, min(SILENCE, left)))
            try:
                done = operation()
            except TimeoutError:
                if left <= SILENCE:
                    raise
                self._on_silence()
            else:
                self._is_told = False
                return done

    def _on_silence(self) -> None:
        process = holder(self._data_dir)
        states = states_of(process)
        if states & WORKING:
            return
        text = _silent(self._data_dir, process, is_stopped=bool(states & STOPPED))
        if self.on_silence is None:
            raise NodeSilent(text)
        if not self._is_told:
            self._is_told = True
            self.on_silence(text)


def _silent(data_dir: Path, process: str, *, is_stopped: bool) -> str:
    """What is wrong with a node that gives no sign of life, and what to do."""
    if is_stopped:
        return (
            f"the node on {data_dir} does not answer: its process {process} is stopped; "
            f"`kill -CONT {process}` lets it go on"
        )
    return (
        f"the node on {data_dir} does not answer: its process {process} is stopped or stuck; wait, "
        f"or end it (`kill -KILL {process}`) and start it again"
    )
