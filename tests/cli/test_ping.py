"""`overlay ping` again and again, in front of a scripted node."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from overlay.cli import ping
from overlay.cli.main import run
from overlay.errors import CommandFailed, Failure
from overlay.node import terminal

PEER, RELAY = "12D3KooWxxxxyyyyzzzz", "12D3KooWrrrrrrrrrrrr"
LOST = CommandFailed(Failure.TIMEOUT, "no answer")

Script = Callable[..., None]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Script:
    """A node that answers each ping so; a terminal that reads what is printed, unless told."""

    def script(*outcomes: float | BaseException, is_terminal: bool = True) -> None:
        left = list(outcomes)

        class Scripted:
            def __init__(self, _: object) -> None: ...

            def post(self, _path: str, _body: dict[str, Any]) -> dict[str, Any]:
                outcome = left.pop(0)
                if isinstance(outcome, BaseException):
                    raise outcome
                return {"peer_id": PEER, "rtt": outcome, "path": "relayed", "relay": RELAY}

            def get(self, path: str, _timeout: float) -> dict[str, Any]:
                ourselves = {"peer_id": RELAY, "name": ""}
                return ourselves if path == "/status" else {
                    "peers": [{"peer_id": PEER, "name": "b\x1bob"}]
                }  # fmt: skip

        monkeypatch.setattr(ping, "Client", Scripted)
        monkeypatch.setattr(ping, "PING_INTERVAL", 0.001)
        monkeypatch.setattr(terminal, "is_shown", lambda: is_terminal)

    return script


def test_on_a_terminal_it_goes_on_and_says_in_the_end_what_came_of_it(
    scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(0.001, 0.003, LOST, 0.002, KeyboardInterrupt())
    assert run(["ping", "bob"]) == 0
    *lines, empty, tally = capsys.readouterr().out.splitlines()
    title = "b\N{REPLACEMENT CHARACTER}ob (xxxxyyyy)"
    assert lines[0] == f"{title}: 1.0 ms (relayed via rrrrrrrr)"
    assert lines[2] == f"{title}: no answer"
    assert (len(lines), empty) == (4, "")
    assert tally == "4 sent, 3 answered, 25 % lost; least/mean/most 1.0/2.0/3.0 ms"


@pytest.mark.parametrize("options", [["--json"], []], ids=["json", "pipe"])
def test_programs_get_one_answer(
    scripted: Script, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    scripted(0.001, is_terminal=bool(options))
    assert run(["ping", "bob", *options]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "xxxxyyyy" in line


def test_it_ends_after_its_count_or_in_time(
    scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(0.001, 0.002, is_terminal=False)
    assert run(["ping", "bob", "-c", "2"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall("^b.ob", out, re.MULTILINE)) == 2
    assert "2 sent, 2 answered, 0 % lost" in out
    scripted(0.001)
    assert run(["ping", "bob", "--timeout", "0"]) == 0
    assert "1 sent, 1 answered" in capsys.readouterr().out


def test_programs_that_ask_for_several_get_a_row_for_the_lost_ones_too(
    scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(0.001, LOST)
    assert run(["ping", "bob", "--count", "2", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["peer_id"], first["rtt"]) == (PEER, 0.001)
    told = {"code": "timeout", "text": "no answer"}
    assert second == {"peer_id": PEER, "rtt": None, "error": told}


def test_who_never_answers_is_one_error(
    scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(LOST)
    assert run(["ping", "bob"]) == 1
    assert capsys.readouterr() == ("", "error: no answer\n")
    scripted(KeyboardInterrupt())
    assert run(["ping", "bob"]) == 130


def test_until_direct_ends_after_its_count(
    scripted: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(0.001, 0.001)
    assert run(["ping", "bob", "--until-direct", "-c", "2"]) == 1
    assert "still relayed after 2 pings" in capsys.readouterr().err
