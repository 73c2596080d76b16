"""`ping --until-direct` and the exit codes of `doctor PEER`, in front of a scripted node."""

import json
from typing import Any

import pytest

from overlay.cli import ask, ping
from overlay.cli.main import run

PEER, MINE = "12D3KooWpeer", "12D3KooWmine"


def scripted(monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any]) -> list[dict[str, Any]]:
    """A node that gives these answers, the last one for ever; returns what is left of them."""
    left = list(answers)

    class Scripted:
        def __init__(self, *_: object) -> None: ...

        def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            assert body == {"peer": "bob"}, path
            return left.pop(0) if len(left) > 1 else left[0]

        def get(self, path: str, _timeout: float) -> dict[str, Any]:
            mine, theirs = ({"peer_id": MINE, "name": "me"}, {"peer_id": PEER, "name": "bob"})
            return mine if path == "/status" else {"peers": [theirs]}

    for module in (ask, ping):
        monkeypatch.setattr(module, "Client", Scripted)
    monkeypatch.setattr(ping, "PING_INTERVAL", 0.001)
    return left


def pong(path: str, relay: str | None = None) -> dict[str, Any]:
    return {"peer_id": PEER, "rtt": 0.02, "path": path, "relay": relay}


def test_ping_goes_on_until_the_path_is_direct(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    relayed = pong("relayed", "12D3KooWrelay")
    left = scripted(monkeypatch, relayed, relayed, pong("reflexive"), relayed)
    assert run(["ping", "bob", "--until-direct", "--json"]) == 0
    told = [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["relayed", "relayed", "reflexive"]
    assert len(left) == 1
    scripted(monkeypatch, relayed)
    assert run(["ping", "bob"]) == 0, "once, if nobody asks for more"
    assert "relayed via relay" in capsys.readouterr().out


def test_ping_gives_up_when_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(monkeypatch, pong("relayed"))
    assert run(["ping", "bob", "--until-direct", "--timeout", "0.05"]) == 1
    assert "overlay doctor bob" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "code"), [("host", 0), ("reflexive", 0), ("relayed", 1), (None, 2)]
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_doctor_exits_by_the_path(
    monkeypatch: pytest.MonkeyPatch, path: str | None, code: int, options: list[str]
) -> None:
    scripted(monkeypatch, {"path": path, "relay": None, "rungs": []})
    assert run(["doctor", "bob", *options]) == code
