"""The other end of the control API: the standard library alone, so that commands start fast."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overlay.errors import CommandFailed, Failure, NoNode, UsageError
from overlay.node.directory import is_running, socket_address

PATIENCE = 90.0
"""Seconds to wait for an answer: longer than any command takes (guess)."""


ENDED = (Failure.CLOSED, "the node has ended before it answered: look at its log, start it again")
LEAVE_PATIENCE = 15.0
"""Seconds for a node to end (guess); it ends by force after fewer."""


class Client:
    """Asks the node that runs on a data directory; NoNode when there is none."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.expanduser().absolute()

    def get(self, path: str, timeout: float | None = PATIENCE) -> Any:
        """The answer to a question."""
        return self._ask("GET", path, None, timeout)

    def post(self, path: str, body: dict[str, Any], timeout: float | None = PATIENCE) -> Any:
        """The result of a command."""
        return self._ask("POST", path, body, timeout)

    @contextlib.contextmanager
    def stream(self, path: str) -> Iterator["Stream"]:
        """Objects as they come, for as long as the context is open."""
        with self._request("GET", path, None, PATIENCE) as (connection, response):
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
        try:
            with self._request(method, path, body, timeout) as (_, response):
                content = response.read()
            return json.loads(content)
        except ValueError:
            raise CommandFailed(Failure.PROTOCOL, "what answers is no node of overlay") from None
        except (ConnectionError, http.client.HTTPException):
            raise CommandFailed(*ENDED) from None
        except TimeoutError:
            raise CommandFailed(
                Failure.TIMEOUT,
                f"the node on {self.data_dir} does not answer: it is stopped or overloaded",
            ) from None

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: Any, timeout: float | None
    ) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        connection = _Connection(self.data_dir, timeout)
        try:
            try:
                data = None if body is None else json.dumps(body)
                connection.connect()
            except TimeoutError:
                raise
            except OSError as error:
                raise self._no_node(error) from None
            try:
                connection.request(method, path, data, {"Content-Type": "application/json"})
                sock = connection.sock
                response = connection.getresponse()
                if response.status != http.HTTPStatus.OK:
                    raise _failure(response.status, response.read())
            except TimeoutError:
                raise
            except (OSError, http.client.HTTPException):
                raise CommandFailed(*ENDED) from None
            yield sock, response
        finally:
            connection.close()

    def _no_node(self, error: Exception) -> Exception:
        if isinstance(error, PermissionError):
            return UsageError(f"{self.data_dir} is another user's: run the command as that user")
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
    if status == http.HTTPStatus.BAD_REQUEST:
        return UsageError(error["text"])
    return CommandFailed(error["code"], error["text"])


class Stream:
    """The lines of an answer that does not end by itself."""

    def __init__(self, connection: socket.socket, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._response = response

    def end(self) -> None:
        """Let no more come, and wake the thread that waits for the next object."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def until(self, deadline: float | None) -> Iterator[Any]:
        """Each object, until `deadline` on the monotone clock or the end of the node.

        CommandFailed where the node says so in place of an object.
        """
        while deadline is None or time.monotonic() < deadline:
            self._connection.settimeout(deadline and max(0.001, deadline - time.monotonic()))
            try:
                line = self._response.readline()
            except (OSError, http.client.HTTPException):  # too late, or the node has ended
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


class _Connection(http.client.HTTPConnection):
    """HTTP over the control socket of a data directory."""

    def __init__(self, data_dir: Path, timeout: float | None) -> None:
        super().__init__("node", timeout=timeout)
        self._data_dir = data_dir

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with socket_address(self._data_dir) as address:
            self.sock.connect(address)
