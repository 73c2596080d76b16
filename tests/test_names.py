"""Names: what is refused, with which reason, and what is let through; short ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import names
from overlay.names import plain

BOB = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"

REFUSED = {
    "a\nb": "U+000A LINE FEED, a control character",
    "\x1b[2Jada": "U+001B ESCAPE, a control character",
    "a\x9bm": "U+009B, a control character",
    "ada\u202etxt": "U+202E RIGHT-TO-LEFT OVERRIDE, which turns round",
    "ada\u2066x": "U+2066 LEFT-TO-RIGHT ISOLATE, which turns round",
    "ada\u200f": "U+200F RIGHT-TO-LEFT MARK, which turns round",
    "ad\u200ba": "U+200B ZERO WIDTH SPACE, which nobody can see",
    "ad\u200da": "U+200D ZERO WIDTH JOINER, which nobody can see",
    "ad\u00ada": "U+00AD SOFT HYPHEN, which nobody can see",
    "ada\ufe0f": "U+FE0F VARIATION SELECTOR-16, which nobody can see",
    "ada\U000e0101": "U+E0101 VARIATION SELECTOR-18, which nobody can see",
    "ada\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A, which nobody can see",
    "\u3164": "U+3164 HANGUL FILLER, which nobody can see",
    "a\u00a0b": "U+00A0 NO-BREAK SPACE, a space that looks like the usual one",
    "a\u2028b": "U+2028 LINE SEPARATOR, a line break",
    "\ue000": "U+E000, which looks different everywhere",
    "\u0378": "U+0378, which is no character of Unicode",
    "ad\udcffa": "the byte FF, which is not UTF-8",
    "\u0301a": "U+0301 COMBINING ACUTE ACCENT, a mark, with no letter before it",
    "a" + 7 * "\u0301": "more than 6 marks on one letter",
    "": "is empty",
    "   ": "has only spaces",
    " ada": "begins or ends with a space",
    "ada ": "begins or ends with a space",
    65 * "n": "has 65 characters, and 64 are the most",
}
ENGLAND = "🏴" + "".join(chr(0xE0000 + ord(each)) for each in "gbeng\x7f")
FAMILY = "\u200d".join("👨👩👧👦")
ALLOWED = [
    *("ada", "Ada Lovelace", 64 * "n", "grüße", "e\u0301", "Việt"),
    *("日本の端末", "שלום", "مرحبا", "नमस्ते"),
    *("🦊", "👩\u200d🚀", "👍🏽", "❤\ufe0f", "🏳\ufe0f\u200d🌈", "1\ufe0f\u20e3", "🇩🇪", ENGLAND),
    f"{FAMILY} home",
    "\U0001fae8",  # of a later Unicode than Python 3.11's
]


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_what_is_no_name_is_refused_for_its_true_reason_and_never_shown(name: str) -> None:
    why = names.complaint(name)
    assert REFUSED[name] in why
    assert why.isprintable()
    assert names.told(name) == ""


@pytest.mark.parametrize("name", ALLOWED, ids=ascii)
def test_what_people_call_their_machines_is_a_name(name: str) -> None:
    assert names.complaint(name) == ""
    assert names.told(name) == plain(name) == name


@given(st.text(max_size=80))
def test_a_name_is_seen_whole_or_refused_in_plain_words(name: str) -> None:
    assert names.complaint(name).isascii()
    assert not names.complaint(names.fitting(name) or "none")
    if names.told(name):
        assert plain(name) == name.strip() == name != ""
    assert set(plain(name)).isdisjoint("\x1b\n\r\u202e\u2066")


def test_words_keep_their_emoji_and_lose_what_a_terminal_obeys() -> None:
    assert plain("hi 👩\u200d🚀\x1b[2J\u202e!") == "hi 👩\u200d🚀�[2J�!"


def test_a_host_that_has_no_name_to_show_gets_none() -> None:
    assert names.fitting("lap\u200btop ") == "laptop"
    assert names.fitting("\u202e\n ") == ""


def test_a_short_id_is_what_differs_and_any_beginning_of_it_stands_for_the_peer() -> None:
    assert names.short_id(BOB) == "EyoppNCU"
    for text in (BOB, BOB[:20], "12D3", "EyoppNCU", "Eyop", "EyoppNCUx8Yx"):
        assert names.stands_for(text, BOB)
    for text in ("", "Eyo", "eyop", "EyoppNCV", "yoppNCU", BOB + "x"):
        assert not names.stands_for(text, BOB)
