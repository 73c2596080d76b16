"""Every page: generated parts are current, code and sessions run, links lead somewhere."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from docs import generate
from overlay.core.link import links
from tests.docs import sessions

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
RUNNABLE = {"console", "python"}
SHOWN = {"text", "toml", "json", "mermaid"}
"""Blocks that are looked at, not run."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", generate.pages(), ids=name_of)
def test_what_the_code_says_is_what_the_page_says(page: Path) -> None:
    text = page.read_text()
    assert text == generate.generated(text), "run: make docs"


def test_a_diagram_is_drawn_from_the_running_table(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "states.md").read_text()
    assert generate.generated(page) == page
    monkeypatch.delitem(links.TRANSITIONS[links.LinkState.UP], links.LinkEvent.SUSPECTED)
    assert "    up --> suspect: LinkSuspect\n" in page
    assert "up --> suspect" not in generate.generated(page)


def test_every_command_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    for command in generate.helps():
        assert f"## {command}\n" in page


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not fragment or fragment in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Path) -> None:
    """A block is run, or it is of a kind that nobody would type."""
    fences = re.findall(r"^```(\w*)", page.read_text(), re.MULTILINE)
    assert set(fences[::2]) <= RUNNABLE | SHOWN, "an opening fence without a known language"
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_is_reached_from_the_readme(page: Path) -> None:
    seen, fresh = set(), [ROOT / "README.md"]
    while fresh:
        here = fresh.pop()
        if here in seen or here.suffix != ".md":
            continue
        seen.add(here)
        targets = [link.partition("#")[0] for link in LINK.findall(here.read_text())]
        fresh += [(here.parent / t).resolve() for t in targets if t and "://" not in t]
    assert page in seen


def _with(*languages: str) -> list[Path]:
    return [page for page in PAGES if sessions.blocks(page.read_text(), *languages)]


@pytest.mark.slow
@pytest.mark.parametrize("page", _with("python"), ids=name_of)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    for _, source in sessions.blocks(page.read_text(), "python"):
        done = subprocess.run(
            [sys.executable, "-c", source],
            cwd=tmp_path,
            env=sessions.environment(tmp_path),
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{source}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("page", _with("console"), ids=name_of)
def test_sessions_run_as_shown(page: Path) -> None:
    """In a short path: the control socket's is limited to some hundred characters."""
    with tempfile.TemporaryDirectory(prefix="docs-") as directory:
        sessions.play(page.read_text(), Path(directory))


def test_a_page_that_shows_what_does_not_happen_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="does not show"):
        sessions.play("```console\n$ echo one\ntwo\n```\n", tmp_path)
    for wrong in ("false", "no-such-command", "false | cat"):
        (tmp_path / wrong).mkdir()
        with pytest.raises(AssertionError, match="exit"):
            sessions.play(f"```console\n$ {wrong}\n```\n", tmp_path / wrong)


def test_a_page_that_leaves_something_in_the_clone_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"left in the clone: .*identity\.key"):
        sessions.play("```console\n$ mkdir one && echo x > one/identity.key\n```\n", tmp_path)


def test_a_page_is_compared_by_order_with_anything_for_an_ellipsis(tmp_path: Path) -> None:
    sessions.play("```console\n$ printf 'a\\nbig   b\\nc\\n'\na\nb…b\n```\n", tmp_path)
