"""Stream frames of wire version 1, byte by byte: ``tests/vectors/streams-1.json`` is never changed.

``python -m tests.test_stream_vectors`` appends the vectors of samples that have none yet. An entry
is a frame with what it says (``fields``), bytes that end the link (``refused``) or that are passed
over (``ignored``), or a whole stream as both ends of a link speak it (``session``).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overlay.core.stream import frames as f
from overlay.core.stream.mux import Opened, StreamMux, Violation
from overlay.core.wire.codec import Broken, Unknown
from tests.test_vectors import changed, digest_of

VECTORS = Path(__file__).parent / "vectors" / "streams-1.json"
DIGESTS = Path(__file__).parent / "vectors" / "streams-1.sha256"
"""One line an entry, ``digest  name``: lines are only ever added."""
Entry = dict[str, Any]

# --- samples -----------------------------------------------------------------------------------

FRAMES: dict[str, f.Frame] = {
    "ready": f.Ready(),
    "open": f.Open("chat/1", 0, 262_144),
    "open with all bounds": f.Open("ü" * f.PROTOCOL_MAX, f.PRIORITY_MIN, 0),
    "open of high priority": f.Open("bulk", f.PRIORITY_MAX, f.CREDIT_MAX),
    "ack": f.Ack(245_760),
    "ack without more credit": f.Ack(0),
    "data": f.Data(b"hello"),
    "one byte of data": f.Data(b"\0"),
    "credit": f.Credit(131_072),
    "least credit": f.Credit(1),
    "end": f.End(),
    "reset, cancelled": f.Reset(f.CANCELLED),
    "reset, refused": f.Reset(f.REFUSED),
    "reset by an application": f.Reset(f.CODE_MAX),
}
REFUSED = {
    "nothing at all": b"",
    "data without data": b"\x03",
    "open without a body": b"\x01",
    "open with an empty name": b"\x01" + msgspec.msgpack.encode(["", 0, 0]),
    "open with a name too long": b"\x01" + msgspec.msgpack.encode(["x" * 65, 0, 0]),
    "open with control characters": b"\x01" + msgspec.msgpack.encode(["a\nb", 0, 0]),
    "open with a priority too high": b"\x01" + msgspec.msgpack.encode(["a", 5, 0]),
    "ack that takes credit back": b"\x02" + msgspec.msgpack.encode([-1]),
    "credit of nothing": b"\x04" + msgspec.msgpack.encode([0]),
    "reset without a code": b"\x06" + msgspec.msgpack.encode([]),
}
IGNORED = {"a type that a later version may have": b"\x07\x01\x02\x03"}
LATER = f.Open("chat/1", 0, 5)


def request_session() -> list[list[Any]]:
    """A request and its reply on one stream, as the client of a link sees it from the start."""
    muxes = {"client": StreamMux(client=True), "server": StreamMux(client=False)}
    said: list[list[Any]] = []

    def pass_on() -> None:
        while any(mux.ready for mux in muxes.values()):
            for here, there in (("client", "server"), ("server", "client")):
                while muxes[here].ready:
                    stream_id, frame = muxes[here].pop()
                    said.append([here, stream_id, frame.hex()])
                    muxes[there].receive(stream_id, frame, 0.0)

    for mux in muxes.values():
        mux.admit()
    pass_on()
    client, server = muxes["client"], muxes["server"]
    ours = client.open("echo", 0, 0.0)
    assert ours is not None
    client.write(ours, b"ping")
    client.end(ours)
    pass_on()
    (opened,) = [output.stream for output in server.take() if isinstance(output, Opened)]
    server.write(opened, server.read(opened, 100))
    server.close(opened, 0.0)
    pass_on()
    assert client.read(ours, 100) == b"ping"
    assert ours.at_eof
    assert ours.is_over
    return said


# --- entries -----------------------------------------------------------------------------------


def fields_of(frame: f.Frame) -> dict[str, Any]:
    if isinstance(frame, msgspec.Struct):
        return {name: getattr(frame, name) for name in frame.__struct_fields__}
    return {name: value.hex() for name, value in dataclasses.asdict(frame).items()}


def expected() -> list[Entry]:
    """Every sample as its entry."""
    entries: list[Entry] = [
        {
            "name": name,
            "frame": type(frame).__name__,
            "fields": fields_of(frame),
            "hex": f.encode(frame).hex(),
        }
        for name, frame in FRAMES.items()
    ]
    entries += [
        {"name": name, "refused": True, "hex": data.hex()} for name, data in REFUSED.items()
    ]
    entries += [
        {"name": name, "ignored": True, "hex": data.hex()} for name, data in IGNORED.items()
    ]
    longer = bytes([f.FrameType.OPEN]) + msgspec.msgpack.encode([*fields_of(LATER).values(), "new"])
    name = "open with a field of a later version"
    entries.append(
        {"name": name, "frame": "Open", "fields": fields_of(LATER), "read": longer.hex()}
    )
    entries.append({"name": "a request and its reply", "session": request_session()})
    return entries


def load() -> list[Entry]:
    entries: list[Entry] = json.loads(VECTORS.read_text()) if VECTORS.exists() else []
    return entries


def append_missing() -> list[str]:
    """Write the vectors of new samples behind the old ones; their names."""
    entries = load()
    names = {entry["name"] for entry in entries}
    new = [entry for entry in expected() if entry["name"] not in names]
    VECTORS.write_text(json.dumps(entries + new, indent=1, ensure_ascii=False) + "\n")
    with DIGESTS.open("a") as file:
        file.writelines(f"{digest_of(entry)}  {entry['name']}\n" for entry in new)
    return [entry["name"] for entry in new]


# --- the tests ---------------------------------------------------------------------------------

ENTRIES = load()


def having(key: str) -> list[Entry]:
    return [entry for entry in ENTRIES if key in entry]


def frame_of(entry: Entry) -> f.Frame:
    kind = getattr(f, entry["frame"])
    if kind is f.Data:
        return f.Data(bytes.fromhex(entry["fields"]["data"]))
    frame: f.Frame = kind(**entry["fields"])
    return frame


@pytest.mark.parametrize("entry", having("fields"), ids=lambda entry: entry["name"])
def test_a_frame_is_what_we_send_and_what_we_read(entry: Entry) -> None:
    if "hex" in entry:
        assert f.encode(frame_of(entry)) == bytes.fromhex(entry["hex"])
    assert f.decode(bytes.fromhex(entry.get("hex") or entry["read"])) == frame_of(entry)


@pytest.mark.parametrize("entry", having("refused"), ids=lambda entry: entry["name"])
def test_what_is_malformed_ends_the_link(entry: Entry) -> None:
    assert isinstance(f.decode(bytes.fromhex(entry["hex"])), Broken)


@pytest.mark.parametrize("entry", having("ignored"), ids=lambda entry: entry["name"])
def test_what_a_later_version_may_say_is_passed_over(entry: Entry) -> None:
    assert isinstance(f.decode(bytes.fromhex(entry["hex"])), Unknown)


def recorded(side: str) -> list[tuple[int, bytes]]:
    """The frames of one side, each with its stream id."""
    (entry,) = having("session")
    return [(number, bytes.fromhex(data)) for who, number, data in entry["session"] if who == side]


def test_a_server_understands_the_recorded_client() -> None:
    server = StreamMux(client=False)
    server.admit()
    for stream_id, frame in recorded("client"):
        server.receive(stream_id, frame, 0.0)
    outputs = server.take()
    assert not any(isinstance(output, Violation) for output in outputs)
    (opened,) = [output.stream for output in outputs if isinstance(output, Opened)]
    assert (opened.protocol, server.read(opened, 100), opened.at_eof) == ("echo", b"ping", True)


def test_a_client_understands_the_recorded_server() -> None:
    client = StreamMux(client=True)
    client.admit()
    ours = client.open("echo", 0, 0.0)
    assert ours is not None
    client.write(ours, b"ping")
    client.end(ours)
    for stream_id, frame in recorded("server"):
        while client.ready:
            client.pop()
        client.receive(stream_id, frame, 0.0)
    assert not any(isinstance(output, Violation) for output in client.take())
    assert (client.read(ours, 100), ours.at_eof, ours.is_over) == (b"ping", True, True)


def test_every_type_of_frame_has_a_vector() -> None:
    shown = {bytes.fromhex(entry["hex"])[0] for entry in having("fields") if "hex" in entry}
    assert shown == set(f.FrameType)


def test_every_sample_has_its_vector() -> None:
    """If this fails for a new sample: run ``python -m tests.test_stream_vectors``. Otherwise the
    wire has changed, and with it every node that is already out there.
    """
    have = {entry["name"]: entry for entry in ENTRIES}
    for entry in expected():
        assert entry["name"] in have
        if "session" not in entry:  # its order is one of many that are allowed
            assert have[entry["name"]] == entry, entry["name"]


def test_vectors_are_only_ever_added() -> None:
    assert changed(ENTRIES, DIGESTS.read_text()) == []
    assert changed(ENTRIES[1:], DIGESTS.read_text()) == [ENTRIES[0]["name"]]
    altered = [{**ENTRIES[0], "hex": "01"}, *ENTRIES[1:]]
    assert changed(altered, DIGESTS.read_text()) == [ENTRIES[0]["name"]]


if __name__ == "__main__":
    for appended in append_missing():
        print(f"appended: {appended}")
