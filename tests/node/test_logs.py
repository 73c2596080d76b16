"""The log: structured, readable, without secrets, and never in the node's way."""

import io
import json
import logging
import os
import re
import stat
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overlay.core.events import Report
from overlay.core.types import PeerId
from overlay.errors import ConfigError, UsageError
from overlay.identity import peer_id_text
from overlay.names import short_id
from overlay.node import logs
from overlay.node.config import LogSection
from overlay.node.logs import Background, LogFile, background, log_report, open_log

PEER = PeerId(bytes(range(32)))


def written(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def section(tmp_path: Path) -> LogSection:
    return LogSection(format="json", file=str(tmp_path / "log"))


def test_each_line_is_an_object_with_event_level_and_time(section: LogSection) -> None:
    with open_log(section) as log:
        log_report(log.logger, Report("info", "peer_up", {"peer": PEER, "hops": 2}))
    (line,) = written(Path(section.file))
    assert line["event"] == "peer_up"
    assert line["level"] == "info"
    assert line["peer"] == peer_id_text(PEER)
    assert line["hops"] == 2
    assert "timestamp" in line


class Screen(io.StringIO):
    """A terminal that a person reads."""

    def isatty(self) -> bool:
        return True


def lines_for_people(stream: io.StringIO, **names: str) -> list[str]:
    """A few events as people read them; a peer is called as `names` has it."""
    known = logs.Names()
    known.of = lambda peer: names.get("bob", "") if peer == PEER else ""
    logger = logs.make_logger(LogSection(), stream, known)
    log_report(logger, Report("info", "peer_up", {"peer": PEER, "negotiated": "mesh", "via": None}))
    log_report(logger, Report("warning", "odd", {"text": "one\ntwo", "count": 3, "from": "x=y"}))
    return stream.getvalue().splitlines()


def test_people_read_local_time_names_and_a_line_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("TZ", "UTC-5:30")  # five and a half hours east (POSIX)
    time.tzset()
    try:
        before = datetime.now(UTC).timestamp()
        up, odd = lines_for_people(io.StringIO(), bob="bob")
        (shown, _) = lines_for_people(Screen())
    finally:
        monkeypatch.undo()
        time.tzset()
    day, hour, said = up.split(" ", 2)
    at = datetime.fromisoformat(f"{day} {hour}+05:30").timestamp()
    assert abs(at - before) < 60
    short = short_id(peer_id_text(PEER))
    assert said == f"info peer_up peer=bob ({short}) negotiated=mesh"
    assert odd.endswith("warning odd text=one�two count=3 from='x=y'")
    assert re.fullmatch(rf"\d\d:\d\d:\d\d info peer_up peer={short} negotiated=mesh", shown)


@pytest.mark.parametrize(
    ("env", "is_coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": ""}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
    ],
    ids=str,
)
def test_colours_are_for_terminals_that_have_them(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], is_coloured: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.setenv(name, env.get(name, ""))
    assert ("\x1b[33mwarning" in "".join(lines_for_people(Screen()))) == is_coloured
    assert ("\x1b" in "".join(lines_for_people(Screen()))) == is_coloured
    assert "\x1b" not in "".join(lines_for_people(io.StringIO()))


def test_no_secret_is_written_and_no_bytes_in_full(section: LogSection) -> None:
    secret = os.urandom(32)
    fields = dict.fromkeys(logs.SECRET, secret) | {"attempt": secret, "invite": "overlay:AZx"}
    fields["text"] = "it quotes overlay:EECGWFY4ROX3 and KPVWYNGXHAIMCIWXVA3BVUATFHX2MTNQ"
    with open_log(section) as log:
        log_report(log.logger, Report("warning", "odd", fields))
    text = Path(section.file).read_text()
    assert "overlay:AZx" not in text
    assert "it quotes" in text
    assert "EECGWFY4ROX3" not in text
    assert "KPVWYNGXHAIMCIWXVA3BVUATFHX2MTNQ" not in text
    assert secret.hex() not in text
    assert secret[:4].hex() in text, "a prefix tells two attempts apart"


def test_a_peer_cannot_write_control_characters_into_the_log(section: LogSection) -> None:
    with open_log(section) as log:
        log_report(log.logger, Report("info", "peer_up", {"name": "a\x1b[2Jb\nc"}))
    (line,) = written(Path(section.file))
    assert line["name"] == "a�[2Jb�c"


def test_less_than_the_level_is_left_out(section: LogSection) -> None:
    with open_log(LogSection(level="warning", format="json", file=section.file)) as log:
        for level in ("debug", "info", "warning", "error"):
            log_report(log.logger, Report(level, level, {}))
    assert [line["event"] for line in written(Path(section.file))] == ["warning", "error"]


def test_the_transports_log_and_libraries_warnings_are_passed_on(section: LogSection) -> None:
    with open_log(section):
        logging.getLogger("overlay.transport").info("from %s", "the transport")
        logging.getLogger("overlay.transport").debug("too little")
        logging.getLogger("aiortc").warning("from a library")
    logging.getLogger("overlay.transport").warning("afterwards")
    lines = written(Path(section.file))
    assert [line["event"] for line in lines] == ["from the transport", "from a library"]
    assert lines[0]["by"] == "overlay.transport"


def test_an_exception_is_written_without_the_values_of_its_variables(section: LogSection) -> None:
    def fail(password: str) -> None:
        raise RuntimeError("a bug")

    secret = os.urandom(8).hex()
    with open_log(section) as log:
        try:
            fail(secret)
        except RuntimeError:
            log.logger.exception("crashed")
    (line,) = written(Path(section.file))
    assert "RuntimeError: a bug" in str(line["exception"])
    assert secret not in str(line)


def test_the_file_is_private_and_appended_to(section: LogSection) -> None:
    for event in ("first", "second"):
        with open_log(section) as log:
            log.logger.info(event)
    assert [line["event"] for line in written(Path(section.file))] == ["first", "second"]
    assert stat.S_IMODE(Path(section.file).stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log.file.*cannot be written"):
        with open_log(LogSection(file=str(tmp_path))):
            pass


def log_and_raise(section: LogSection, error: Exception) -> None:
    """A node that says something and then ends by `error` before it was up."""
    with open_log(section) as log:
        log.logger.warning("the last words")
        raise error


def test_a_node_that_cannot_start_as_asked_logs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        log_and_raise(LogSection(), UsageError("one line for the user"))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("section", "error"),
    [
        (LogSection(level="debug"), UsageError("who asks for everything gets it")),
        (LogSection(), RuntimeError("a bug")),
    ],
    ids=["debug", "crash"],
)
def test_what_was_held_back_comes_out_when_it_is_needed(
    capfd: pytest.CaptureFixture[str], section: LogSection, error: Exception
) -> None:
    with pytest.raises(type(error)):
        log_and_raise(section, error)
    assert "the last words" in capfd.readouterr().err


class HeldTerminal(io.StringIO):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait(60)
        return super().write(text)


def test_a_held_terminal_never_makes_the_writer_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_WAITING", 10)
    terminal = HeldTerminal()
    with background(terminal) as stream:
        for number in range(100):
            stream.write(f"{number}\n")
        terminal.free.set()
        while len(terminal.getvalue().splitlines()) < 10:
            pass  # what waited is being written: there is room for more
        stream.write("after\n")
    lines = terminal.getvalue().splitlines()
    assert lines[:5] == ["0", "1", "2", "3", "4"]
    assert lines[-1] == "after"
    (missed,) = [line for line in lines if "missed" in line]
    assert int(missed.strip("(").split()[0]) == 100 - (len(lines) - 2)


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        stream = Background(pipe)
        stream.write("nobody hears\n")
        stream.finish()
        pipe.write("the counter-test")
        with pytest.raises(BrokenPipeError):
            pipe.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)


def test_a_log_on_a_full_disk_goes_on_when_there_is_room_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    disk = os.open("/dev/full", os.O_WRONLY)
    stream = Background(LogFile(disk, "node.log"))
    stream.write("one\n")
    stream.write("two\n")
    stream.release()
    while stream._unwritten < 2:
        pass  # both are lost
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), disk)
    stream.write("three\n")
    stream.finish()
    assert path.read_text() == "(2 lines missed)\nthree\n"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: log.file: node.log cannot be written: No space left")
    os.close(disk)


def test_what_follows_waits_until_all_is_written_or_nobody_reads() -> None:
    order: list[str] = []
    terminal = HeldTerminal()
    done = threading.Event()

    def follow() -> None:
        order.append(terminal.getvalue())
        done.set()

    with background(terminal) as stream:
        stream.write("screen")
        stream.afterwards(follow)
        assert order == []
        terminal.free.set()
        assert done.wait(60)
    assert order == ["screen"]
    terminal.close()
    done.clear()
    with background(terminal) as stream:
        stream.write("nobody reads it")
        stream.afterwards(done.set)
        assert done.wait(60)
