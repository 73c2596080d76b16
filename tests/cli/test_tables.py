"""What people read of a node and of its peers, and codes that have room."""

import io
import itertools
from typing import Any

import pytest
from rich.cells import cell_len

from overlay.cli import tables
from overlay.cli.tables import ALWAYS, FURTHER, listening, qr_code
from overlay.node import terminal

IDS = (f"12D3KooW{letter * 44}" for letter in itertools.cycle("ABCDEFGH"))
CREW = "\U0001f469\u200d\U0001f680"


def test_who_can_reach_a_node_is_said_beside_its_addresses() -> None:
    lan = ["192.168.1.5:7000", "[fe80::1]:7000"]
    assert listening(lan) == ", ".join(lan)
    assert "only this machine" in listening(["[::1]:7000", "127.0.0.1:7000"])
    assert "same cable or switch" in listening(["[fe80::1]:7000"])
    assert "no network interface has an address" in listening([])


# --- peers ---------------------------------------------------------------------------------------


def row(name: str, **more: Any) -> dict[str, Any]:
    """What the control API says of a peer."""
    told = {
        "peer_id": next(IDS),
        "name": name,
        "state": "up",
        "direction": "out",
        "negotiated": "manual",
        "via": None,
        "hops": 0,
        "path": "reflexive",
        "remote": "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535",
        "since": 0.0,
        "rtt": 1.2345,
        "bytes_in": 1 << 30,
        "bytes_out": 1 << 20,
        "relay": None,
    }
    return {**told, **more}


def printed(
    capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]], **more: Any
) -> list[str]:
    answer = {"peers": rows, "self": {"peer_id": next(IDS), "name": "me"}}
    tables.print_peers(answer, **{"everybody": False, "wide": False, **more})
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", ["bob", CREW, "端末", "a name of twenty-seven sign"], ids=ascii)
@pytest.mark.usefixtures("narrow")
def test_a_peer_is_one_line_of_eighty_columns_and_whole(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    rows = [row(name), row("x", state="suspect", path="relayed"), row("y", state="silent")]
    head, *lines = printed(capsys, rows)
    assert len(lines) == 3
    assert head.split() == ["name", "peer", "id", "state", "path", "negotiated", "rtt"]
    for line, told in zip(lines, rows, strict=True):
        words = [told["name"], told["peer_id"][8:16], told["state"], told["path"]]
        assert line.split("  ")[0] == told["name"]
        assert all(word in line for word in (*words, "manual", "1234.5 ms"))
    assert all(cell_len(line) <= 80 for line in (head, *lines))
    assert len({cell_len(line) for line in lines}) == 1, "the columns are aligned"


@pytest.mark.usefixtures("narrow")
def test_a_longer_name_is_whole_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    head, line = printed(capsys, [row(64 * "n")])
    assert line.startswith(64 * "n")
    assert line.endswith("1234.5 ms")
    assert "…" not in head + line


def test_columns_come_as_they_have_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row("bob", via=next(IDS), relay=next(IDS))]
    heads = []
    for columns in (10, 80, 110, 120, 150, 400):
        monkeypatch.setenv("COLUMNS", str(columns))
        head, line = printed(capsys, rows)
        heads.append(head)
        assert len(line) <= columns or head.endswith("rtt")
    assert heads[0] == heads[1]
    assert sorted(set(heads), key=len) == sorted(set(heads), key=heads.index)
    assert len(set(heads)) > 3
    assert heads[-1].split() == " ".join((*ALWAYS, *FURTHER)).split()
    monkeypatch.setenv("COLUMNS", "20")
    assert printed(capsys, rows, wide=True)[0] == heads[-1]
    monkeypatch.delenv("COLUMNS")
    assert printed(capsys, rows)[0] == heads[-1], "a pipe has room for all"


def test_a_column_that_says_nothing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    head, _ = printed(capsys, [row("bob")], wide=True)
    assert "relay" not in head.split()
    assert "via" not in head.split()


def test_who_has_this_nodes_name_stands_below_its_own_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, own, other = printed(capsys, [row("me")])
    assert "this node" in own
    assert "this node" not in other
    assert all("this node" not in line for line in printed(capsys, [row("other")]))


def test_members_without_a_link_are_shown_when_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = row("cat", state="known", direction=None, path=None, rtt=None)
    assert printed(capsys, [known]) == ["no links"]
    assert "no link" in printed(capsys, [known], everybody=True)[1]


def test_a_peer_without_a_name_has_its_short_id(capsys: pytest.CaptureFixture[str]) -> None:
    nameless = row("")
    (_, line) = printed(capsys, [nameless])
    assert line.split()[:2] == ["-", nameless["peer_id"][8:16]]


def test_links_in_doubt_are_counted() -> None:
    assert tables.links({"links": 3}) == "3"
    assert tables.links({"links": 3, "suspect": 0, "silent": 0}) == "3"
    assert (
        tables.links({"links": 3, "suspect": 2, "silent": 1})
        == "3, 2 of them suspect, 1 more silent"
    )


# --- codes ---------------------------------------------------------------------------------------


LINK = "overlay:" + "ab" * 160


def test_a_code_is_whole_or_its_size_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = qr_code(LINK)
    rows = whole.splitlines()
    columns, lines = len(rows[0]), len(rows) + 3
    assert {len(row) for row in rows} == {columns}
    monkeypatch.setattr(terminal, "is_shown", lambda: True)
    for width, height in ((columns - 1, lines), (columns, lines - 1)):
        monkeypatch.setattr(terminal, "size", lambda w=width, h=height: (w, h))
        assert f"{columns} columns and {lines} lines" in qr_code(LINK)
    monkeypatch.setattr(terminal, "size", lambda: (columns, lines))
    assert qr_code(LINK) == whole


def test_a_stream_without_blocks_gets_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert "no characters" in qr_code(LINK)
