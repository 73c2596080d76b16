"""Captures: what a terminal of 80 columns shows, without what only one run has."""

import re
from pathlib import Path

import pytest

from docs import captures
from docs.terminal import COLUMNS, Failed, Screen, Terminal
from tests.docs import sessions
from tests.docs.test_docs import PAGES, name_of

PEER = "12D3KooWFZ4qxSagbw5Z2DQdjWwH8VDe4ZaA5YdAmvMJW6up4wjx"


def shown(written: str) -> str:
    screen = Screen()
    screen.write(written)
    return screen.text()


# --- the terminal --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("one\r\ntwo\r\n", "one\ntwo"),
        ("10 %\r100 %", "100 %"),
        ("a long line\r\x1b[Kshort", "short"),
        ("one\r\ntwo\x1b[1A\r\x1b[2Knew", "new\ntwo"),
        ("\x1b[1;32mgreen\x1b[0m \x1b[?25lgo", "green go"),
        ("a\tb\bc", "a       c"),
        ("x" * 81, "x" * 80 + "\nx"),
        ("x" * 80 + "\r\ny", "x" * 80 + "\ny"),
        ("\x1b]0;title\x07text", "text"),
    ],
)
def test_a_screen_shows_what_a_terminal_would(written: str, text: str) -> None:
    assert shown(written) == text


def test_a_command_sees_a_terminal_of_80_by_24(tmp_path: Path) -> None:
    terminal = Terminal("stty size; test -t 1 && cat", tmp_path, {"PATH": "/usr/bin:/bin"})
    try:
        terminal.read_until("24 80", 30)
        with pytest.raises(Failed, match="never showed"):
            terminal.read_until("what nobody wrote", 0.01)
        terminal.type("\x03")
        assert terminal.read_to_end(30) != 0, "Ctrl-C is for the command in the terminal"
    finally:
        terminal.close()


# --- what is made neutral ------------------------------------------------------------------------


def test_nothing_of_a_node_is_left_and_nothing_gets_wider() -> None:
    link = "overlay:" + "q7Xw-_" * 60
    rows = [
        f"peer id    {PEER}",
        f"{PEER[:16]}  127.0.0.1:54321  12.3 ms  2m 3s  17.5 KiB",
        f"{PEER[-8:]}  data /tmp/home/ada",
        *(f"    overlay join {link}"[at : at + COLUMNS] for at in range(0, 380, COLUMNS)),
        "until 2026-11-30 19:50 UTC",
    ]
    text = captures.neutral("\n".join(rows), [PEER], "/tmp/home")
    for secret in (PEER, PEER[8:16], PEER[-8:], "q7Xw", "54321", "12.3", "/tmp/home", "19:50"):
        assert secret not in text, secret
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert captures.made_up_id(0) in text
    assert captures.made_up_id(0)[-8:] in text
    assert len(text.splitlines()) == len(rows)


def test_a_qr_code_is_described_and_not_shown() -> None:
    text = captures.neutral("a link\n" + "\n".join(["█ ▀▄" * 10] * 12) + "\nand on", [], "/nowhere")
    assert text == "a link\n[here is the QR code, 40 columns wide and 12 lines high]\nand on"


def test_a_made_up_link_is_of_the_alphabet_of_the_real_one() -> None:
    for body in ("ABC234" * 20, "abc234" * 20, "aB-_" * 20):
        made = captures.neutral("overlay:" + body, [], "/nowhere").replace("\n", "")
        assert len(made) == len("overlay:" + body)
        assert body[:6] not in made
        assert made.isupper() == ("overlay:" + body).isupper()


# --- the pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_shows_is_no_wider_than_a_terminal(page: Path) -> None:
    for _, body in sessions.blocks(page.read_text(), "console", "text"):
        for line in body.splitlines():
            assert len(line) <= COLUMNS, line


def test_every_capture_stands_on_a_page_and_is_written_by_the_script() -> None:
    marked = {name for page in captures.pages() for _, name in _marks(page.read_text())}
    assert marked, "no page shows anything"
    for page in captures.pages():
        for body, _ in _marks(page.read_text()):
            assert body.startswith("```text\n$ "), body
            assert body.endswith("\n```\n"), body


def _marks(text: str) -> list[tuple[str, str]]:
    return [
        (part[0][len(part[1]) : -len(part[3])], part[2]) for part in captures.CAPTURE.finditer(text)
    ]


def test_a_table_with_room_for_more_is_the_same_and_with_other_words_is_not() -> None:
    wide = "name  rtt     age  hops  dir\nbob   1.2 ms  2s   0     in"
    narrow = "name      rtt  age\nbob   11.2 ms  12s"
    assert captures.shape(wide) == captures.shape(narrow)
    assert captures.shape(wide) != captures.shape(narrow.replace("bob", "eve"))


def test_a_page_that_shows_something_else_is_found_out() -> None:
    page = Path("page.md")
    text = "<!-- capture: one -->\n```text\n$ date\nit is 10\n```\n<!-- end -->\n"
    found = {"one": "$ date\nit is 11"}
    assert not [*captures.differing({page: text}, found)], "numbers may differ"
    other = {"one": "$ date\nit was 11"}
    assert dict(captures.differing({page: text}, other)) == {page: re.sub("is 10", "was 11", text)}
