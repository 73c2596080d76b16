"""Files from node to node, in a mesh in memory: agreed to, resumed, verified, written safely."""

import errno
import os
import re
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from overlay import api
from overlay.apps.files import wire
from overlay.apps.files.names import NAME_MAX, fault_of, numbered
from overlay.apps.files.part import CHUNK, Part, Taken, Unsafe, hasher
from overlay.apps.files.service import Files
from overlay.apps.files.wire import Begin, Entry, Have, Kept, Offer, Whole, Wire
from overlay.errors import CommandFailed
from overlay.testing import Mesh

Row = dict[str, Any]
CONTENT = bytes(range(251)) * 8_000
"""Two pieces, the second not full."""
HALF = len(CONTENT) // 2


class Reader:
    """Reads what a receiver tells, and keeps it; answers questions as told."""

    def __init__(self, rows: AsyncIterator[Row], files: Files, accept: bool) -> None:
        self._rows, self._files, self._accept = rows, files, accept
        self.told: list[Row] = []
        self._more = trio.Event()

    async def run(self) -> None:
        async for row in self._rows:
            self.told.append(row)
            if row.get("question"):
                self._files.answer(row["question"], accept=self._accept)
            self._more.set()
            self._more = trio.Event()

    async def next_of(self, event: str, already: int = 0) -> Row:
        """The row of this kind after the first `already` ones."""
        while True:
            found = [row for row in self.told if row["event"] == event]
            if len(found) > already:
                return found[already]
            await self._more.wait()


@asynccontextmanager
async def receiving(
    node: api.Node, into: Path, *senders: api.Node, accept: bool | None = None
) -> AsyncIterator[Reader]:
    """`overlay receive` at a node; `accept`: what its user answers, None: nobody is there."""
    files = Files()
    ids = [sender.peer_id for sender in senders]
    async with files.receive(node, str(into), ids, asks=accept is not None) as rows:
        async with trio.open_nursery() as nursery:
            reader = Reader(rows, files, bool(accept))
            nursery.start_soon(reader.run)
            await reader.next_of("ready")
            yield reader
            nursery.cancel_scope.cancel()


async def send(node: api.Node, to: api.Node, *paths: Path) -> list[Row]:
    """`overlay send` to its end."""
    async with Files().send(node, to.peer_id, [str(path) for path in paths]) as rows:
        return [row async for row in rows]


async def refusal(node: api.Node, to: api.Node, *paths: Path) -> CommandFailed:
    """What a `send` that comes to nothing says."""
    with pytest.raises(CommandFailed) as caught:
        await send(node, to, *paths)
    return caught.value


@pytest.fixture
def into(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    return path


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- what is sent arrives ------------------------------------------------------------------------


async def test_files_arrive_whole_and_are_told_at_both_ends(
    mesh: Mesh, file: Path, into: Path, tmp_path: Path
) -> None:
    a, b = await mesh.nodes(2)
    empty = tmp_path / "empty"
    empty.touch()
    async with receiving(b, into, a) as receiver:
        rows = await send(a, b, file, empty)
        assert (await receiver.next_of("received", 1))["path"] == str(into / "empty")
        first = await receiver.next_of("received")
    assert names_in(into) == ["a.bin", "empty"]
    assert (into / "a.bin").read_bytes() == CONTENT
    sent = [row for row in rows if row["event"] == "sent"]
    assert [row["file"] for row in sent] == ["a.bin", "empty"]
    whole = hasher()
    whole.update(CONTENT)
    assert sent[0]["digest"] == first["digest"] == whole.hexdigest()
    assert (first["peer_id"], first["name"], first["size"]) == (a.peer_id, "n1", len(CONTENT))


async def test_nothing_is_overwritten(mesh: Mesh, file: Path, into: Path) -> None:
    a, b = await mesh.nodes(2)
    (into / "a.bin").write_text("mine")
    (into / "a (1).bin").symlink_to("nowhere")
    async with receiving(b, into, a):
        (sent,) = [row for row in await send(a, b, file) if row["event"] == "sent"]
    assert sent["there"] == "a (2).bin"
    assert (into / "a.bin").read_text() == "mine"
    assert (into / "a (2).bin").read_bytes() == CONTENT


# --- resumed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "offset"),
    [
        (CONTENT[:HALF], HALF),
        (CONTENT, len(CONTENT)),
        (b"x" + CONTENT[1:HALF], 0),
        (CONTENT[: HALF - 1] + b"x", 0),
        (bytes(HALF), 0),
        (CONTENT + b"x", 0),
    ],
    ids=["half", "all", "tampered at its beginning", "at its end", "holes", "longer"],
)
async def test_a_part_is_gone_on_with_if_it_is_the_beginning_of_the_file(
    mesh: Mesh, file: Path, into: Path, part: bytes, offset: int
) -> None:
    a, b = await mesh.nodes(2)
    (into / "a.bin.part").write_bytes(part)
    async with receiving(b, into, a):
        rows = await send(a, b, file)
    assert [row["offset"] for row in rows if row["event"] == "started"] == [offset]
    assert names_in(into) == ["a.bin"]
    assert (into / "a.bin").read_bytes() == CONTENT


async def test_what_came_before_the_sender_stopped_is_not_sent_again(
    mesh: Mesh, file: Path, into: Path
) -> None:
    a, b = await mesh.nodes(2)
    async with receiving(b, into, a) as receiver:
        talk = await offered(a, b, Entry("a.bin", len(CONTENT)))
        assert (await talk.hear(Have)).offset == 0
        await talk.say(Begin(0))
        await talk.stream.send_all(CONTENT[: CHUNK + HALF])
        while (into / "a.bin.part").stat().st_size < CHUNK:  # noqa: ASYNC110
            await trio.sleep(0.1)
        talk.stream.reset(wire.STOPPED)
        failed = await receiver.next_of("failed")
        assert failed["text"] == "the sender has stopped"
        assert CHUNK <= failed["kept"] <= CHUNK + HALF
        rows = await send(a, b, file)
    assert [row["offset"] for row in rows if row["event"] == "started"] == [failed["kept"]]
    assert (into / "a.bin").read_bytes() == CONTENT


async def test_an_ended_receiver_is_told_to_the_sender_who_goes_on_later(
    mesh: Mesh, tmp_path: Path, into: Path
) -> None:
    a, b = await mesh.nodes(2)
    big = tmp_path / "big.bin"
    with big.open("wb") as out:
        out.truncate(64 << 20)
    errors: list[CommandFailed] = []

    async def keep_sending() -> None:
        errors.append(await refusal(a, b, big))

    async with trio.open_nursery() as nursery:
        async with receiving(b, into, a) as receiver:
            nursery.start_soon(keep_sending)
            await receiver.next_of("progress")
    assert "n2 has stopped receiving big.bin" in errors[0].text
    assert "goes on from there" in errors[0].text
    assert names_in(into) == ["big.bin.part"]


# --- verified ------------------------------------------------------------------------------------


async def offered(node: api.Node, to: api.Node, *entries: Entry) -> Wire:
    """A sender of ours that may lie; its offer is made."""
    talk = Wire(await node.open_stream(to.peer_id, wire.PROTOCOL))
    await talk.say(Offer(list(entries)))
    return talk


async def test_what_arrives_damaged_is_thrown_away(mesh: Mesh, into: Path) -> None:
    a, b = await mesh.nodes(2)
    async with receiving(b, into, a) as receiver:
        talk = await offered(a, b, Entry("a.bin", 5))
        await talk.hear(Have)
        await talk.say(Begin(0))
        await talk.stream.send_all(b"hello")
        await talk.say(Whole(bytes(32)))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await talk.hear(Kept)
        assert wire.code_of(caught.value) == wire.DAMAGED
        assert "damaged" in (await receiver.next_of("failed"))["text"]
    assert names_in(into) == []


async def test_a_file_that_changes_meanwhile_is_not_sent_as_if_it_were_one(
    mesh: Mesh, file: Path
) -> None:
    a, b = await mesh.nodes(2)
    errors: list[CommandFailed] = []

    async def try_to_send() -> None:
        errors.append(await refusal(a, b, file))

    async with trio.open_nursery() as nursery, b.accept_streams(wire.PROTOCOL) as arrivals:
        nursery.start_soon(try_to_send)
        talk = Wire(await anext(arrivals))
        await talk.hear(Offer)
        file.write_bytes(CONTENT + b"more")  # noqa: ASYNC240
        await talk.say(Have(0, hasher().digest()))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await talk.hear(Begin)
    assert wire.code_of(caught.value) == wire.CHANGED
    assert "has changed" in errors[0].text


# --- consent -------------------------------------------------------------------------------------


async def test_the_user_is_asked_and_yes_means_yes(mesh: Mesh, file: Path, into: Path) -> None:
    a, b = await mesh.nodes(2)
    async with receiving(b, into, accept=True) as receiver:
        await send(a, b, file)
        asked = await receiver.next_of("offered")
    assert asked["files"] == [{"file": "a.bin", "size": len(CONTENT)}]
    assert names_in(into) == ["a.bin"]


async def test_whatever_is_not_agreed_to_is_refused_at_both_ends(
    mesh: Mesh, file: Path, into: Path
) -> None:
    a, b, c = await mesh.nodes(3)
    async with receiving(b, into, accept=False) as receiver:
        assert (await refusal(a, b, file)).text == "n2 does not want a.bin"
        assert "declined" in (await receiver.next_of("refused"))["text"]
    async with receiving(b, into, c) as receiver:
        assert (await refusal(a, b, file)).text == "n2 does not want a.bin"
        assert "--from" in (await receiver.next_of("refused"))["text"]
        await send(c, b, file)
    async with receiving(b, into) as receiver:
        error = await refusal(a, b, file)
        assert "`overlay receive --from n1`" in error.text
        assert "no terminal" in (await receiver.next_of("refused"))["text"]
    assert names_in(into) == ["a.bin"]


async def test_who_leaves_before_the_answer_leaves_nothing_to_answer(
    mesh: Mesh, into: Path
) -> None:
    a, b = await mesh.nodes(2)
    files = Files()
    async with files.receive(b, str(into), [], asks=True) as rows:
        assert (await anext(rows))["event"] == "ready"
        talk = await offered(a, b, Entry("a.bin", 5))
        question = (await anext(rows))["question"]
        talk.stream.reset(wire.STOPPED)
        failed = await anext(rows)
        assert (failed["event"], failed["file"]) == ("failed", None)
        with pytest.raises(CommandFailed, match="has gone"):
            files.answer(question, accept=True)
        with pytest.raises(CommandFailed, match="has gone"):
            files.answer("nonesuch", accept=True)
    assert names_in(into) == []


async def test_where_nobody_receives_the_sender_is_told_what_to_do_and_one_command_receives(
    mesh: Mesh, file: Path, into: Path
) -> None:
    a, b = await mesh.nodes(2)
    assert "run `overlay receive --from n1` first" in (await refusal(a, b, file)).text
    async with receiving(b, into, a):
        with pytest.raises(CommandFailed, match="runs at this node already"):
            async with receiving(b, into, a):
                pass


# --- names and places ----------------------------------------------------------------------------

BAD = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/etc/passwd",
    ".bashrc",
    "x.",
    "x ",
    " x",
    "a\nb",
    "a\x1b[2J",
    "a\x00b",
    "a\x7f",
    "evil\u202egpj.exe",
    "a\u2066b",
    "a\u200bb",
    "a\ufeffb",
    "a\u2028b",
    "a\udc80b",
    "CON",
    "nul",
    "Nul.txt",
    "com1.tar.gz",
    "LPT³",
    "aux .txt",
    "x.part",
    "x.PART",
    "x" * (NAME_MAX + 1),
    "ü" * (NAME_MAX // 2 + 1),
]
ODD = "aé日.. ()-/\\\x00\u202eCONnul1"
GOOD = ["a", "a b.txt", "grüße.pdf", "日本語.txt", "👩\u200d🚀.png", "console.log", "x" * NAME_MAX]


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_not_safe_are_refused(name: str) -> None:
    fault = fault_of(name)
    assert fault
    assert fault.isprintable()


@pytest.mark.parametrize("name", GOOD)
def test_names_that_people_use_are_taken(name: str) -> None:
    assert fault_of(name) is None


@given(st.text(ODD, max_size=50), st.integers(1, 999))
def test_a_name_that_is_taken_means_one_plain_file(name: str, number: int) -> None:
    if fault_of(name) is None:
        for each in (name, name + ".part", numbered(name, number)):
            assert os.path.basename(os.path.normpath(os.path.join("dir", each))) == each
            assert len(each.encode()) <= 255


async def test_a_sender_that_names_another_place_is_refused(mesh: Mesh, into: Path) -> None:
    a, b = await mesh.nodes(2)
    async with receiving(b, into, a) as receiver:
        for number, name in enumerate(("../x", "ok\u202e")):
            talk = await offered(a, b, Entry("fine", 1), Entry(name, 1))
            with pytest.raises(trio.BrokenResourceError) as caught:
                await talk.hear(Have)
            assert wire.code_of(caught.value) == wire.BAD_NAME
            await receiver.next_of("refused", number)
    assert names_in(into) == []
    assert names_in(into.parent) == ["into"]


async def test_what_makes_no_sense_ends_the_offer_alone(mesh: Mesh, file: Path, into: Path) -> None:
    a, b = await mesh.nodes(2)
    async with receiving(b, into, a):
        for nonsense in (b"\xff" * 8, b"\0\0\0\1\xc1", b"\0\0\0\x02\x80\x80", b""):
            stream = await a.open_stream(b.peer_id, wire.PROTOCOL)
            if nonsense:
                await stream.send_all(nonsense)
            await stream.send_eof()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        talk = await offered(a, b, Entry("a.bin", 5))
        await talk.hear(Have)
        await talk.say(Begin(3))  # where nothing is
        with pytest.raises(trio.BrokenResourceError) as caught:
            await talk.hear(Kept)
        assert wire.code_of(caught.value) == wire.PROTOCOL_BROKEN
        await send(a, b, file)
    assert names_in(into) == ["a.bin"]


async def test_what_cannot_be_sent_is_said_before_anybody_is_asked(
    mesh: Mesh, tmp_path: Path
) -> None:
    a, b = await mesh.nodes(2)
    (tmp_path / "d").mkdir()
    (tmp_path / "e").mkdir()
    for path in ("x", "d/x", "e/nul", ".hidden"):
        (tmp_path / path).touch()
    os.mkfifo(tmp_path / "pipe")
    for paths, text in (
        (("none",), "cannot be read: No such file"),
        (("d",), r"is a directory: pack it first \(tar -czf d.tgz d\)"),
        (("pipe",), "is no regular file"),
        (("e/nul",), "device"),
        ((".hidden",), "rename it"),
        (("x", "d/x"), "has the same name"),
    ):
        error = await refusal(a, b, *(tmp_path / path for path in paths))
        assert error.code == "usage"
        assert re.search(text, error.text), error.text


# --- the unfinished file -------------------------------------------------------------------------


@contextmanager
def opened(path: Path) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def test_a_part_leads_nowhere_else(into: Path) -> None:
    target = into.parent / "target"
    target.write_text("untouched")
    (into / "link.part").symlink_to(target)
    (into / "hard.part").hardlink_to(target)
    os.mkfifo(into / "pipe.part")
    (into / "dir.part").mkdir()
    with opened(into) as directory:
        for name in ("link", "hard", "pipe", "dir"):
            with pytest.raises(Unsafe, match=f"{name}.part is there"):
                Part.open(directory, name)
    assert target.read_text() == "untouched"


def test_a_part_has_one_writer_and_an_empty_one_leaves_nothing(into: Path) -> None:
    with opened(into) as directory:
        part = Part.open(directory, "a")
        with pytest.raises(Taken):
            Part.open(directory, "a")
        assert part.close() == 0
    assert names_in(into) == []


async def test_a_full_disk_is_one_line_at_both_ends_and_the_part_is_kept(
    mesh: Mesh, file: Path, into: Path
) -> None:
    a, b = await mesh.nodes(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with receiving(b, into, a) as receiver:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, hard))
            error = await refusal(a, b, file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "the disk of n2 has no room for a.bin" in error.text
        failed = await receiver.next_of("failed")
        assert (failed["kept"], failed["file"]) == (HALF, "a.bin")
        assert os.strerror(errno.EFBIG) in failed["text"]
        rows = await send(a, b, file)
    assert [row["offset"] for row in rows if row["event"] == "started"] == [HALF]
    assert (into / "a.bin").read_bytes() == CONTENT


async def test_a_file_larger_than_the_disk_is_refused_before_it_comes(
    mesh: Mesh, into: Path
) -> None:
    a, b = await mesh.nodes(2)
    async with receiving(b, into, a) as receiver:
        talk = await offered(a, b, Entry("a.bin", 1 << 60))
        with pytest.raises(trio.BrokenResourceError) as caught:
            await talk.hear(Have)
        assert wire.code_of(caught.value) == wire.NO_SPACE
        assert "room" in (await receiver.next_of("failed"))["text"]
    assert names_in(into) == []
