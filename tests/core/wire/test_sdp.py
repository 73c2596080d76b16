"""Session descriptions: as a stock peer writes, reads and opens with them."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from hypothesis import example, given
from hypothesis import strategies as st

from overlay.core.types import Address, Candidate, IceCredentials
from overlay.core.wire import dial_tokens as dial
from overlay.core.wire import sdp
from overlay.core.wire.sdp import Description, SdpError
from tests.keys import seeded

CREDENTIALS = IceCredentials("abcd1234", "p" * 24)
FINGERPRINT = seeded("certificate")
HOST = Candidate("host", Address("192.0.2.1", 4433), 2130706431)
SRFLX = Candidate(
    "srflx", Address("198.51.100.7", 61000), 1694498815, "2", Address("192.0.2.1", 4433)
)
FULL = Description(CREDENTIALS, FINGERPRINT, "actpass", (HOST, SRFLX))

FACTS_ANSWER = """v=0
o=- 1 1 IN IP4 192.0.2.1
s=-
t=0 0
a=ice-lite
a=group:BUNDLE 0
m=application 4433 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 192.0.2.1
a=mid:0
a=ice-ufrag:abcd1234
a=ice-pwd:pppppppppppppppppppppppp
a=fingerprint:sha-256 {fingerprint}
a=setup:passive
a=sctp-port:5000
a=max-message-size:262144
a=candidate:1 1 udp 2130706431 192.0.2.1 4433 typ host
a=end-of-candidates
"""
"""The answer with which both browser engines have opened, measured."""

CHROMIUM_OFFER = """v=0
o=- 3546789012345678901 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE data
a=extmap-allow-mixed
a=msid-semantic: WMS
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=candidate:2 1 udp 2113937151 0f9c1d2e-9a31-4bb1-8a42-5e6f70819203.local 50000 typ host \
generation 0 network-cost 999
a=candidate:3 1 tcp 1518280447 192.0.2.9 9 typ host tcptype active generation 0
a=candidate:4 1 udp 1677729535 198.51.100.9 50000 typ srflx raddr 0.0.0.0 rport 0 generation 0
a=ice-ufrag:Xy/+
a=ice-pwd:0123456789abcdefghijkl
a=ice-options:trickle
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=mid:data
a=sctp-port:5000
a=max-message-size:262144
"""


def dos(text: str) -> str:
    """With a real fingerprint and the line ends of the wire."""
    return text.format(fingerprint=FINGERPRINT.hex(":").upper()).replace("\n", "\r\n")


def parsed(text: str) -> Description:
    description = sdp.parse(text)
    assert isinstance(description, Description), description
    return description


# --- writing -----------------------------------------------------------------------------------


def test_a_fabricated_answer_is_the_one_that_browsers_open_with() -> None:
    answer = sdp.fabricated_answer(Address("192.0.2.1", 4433), CREDENTIALS, FINGERPRINT)
    assert answer == dos(FACTS_ANSWER)


def test_a_fabricated_answer_of_several_addresses_prefers_the_first() -> None:
    addresses = (Address("2001:db8::1", 4433), Address("192.0.2.1", 4433))
    first, second = addresses
    answer = sdp.fabricated_answer(first, CREDENTIALS, FINGERPRINT, mid="data", more=(second,))
    assert "c=IN IP6 2001:db8::1\r\n" in answer
    description = parsed(answer)
    assert description.mid == "data"
    assert [each.address for each in description.candidates] == list(addresses)
    priorities = [each.priority for each in description.candidates]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == 2


@given(
    st.builds(
        Description,
        credentials=st.just(CREDENTIALS),
        fingerprint=st.binary(min_size=32, max_size=32),
        setup=st.sampled_from(sdp.SETUPS),
        candidates=st.sampled_from([(), (HOST,), (HOST, SRFLX)]),
        lite=st.booleans(),
        complete=st.booleans(),
        mid=st.sampled_from(["0", "data"]),
        sctp_port=st.integers(1, 65535),
        max_message_size=st.integers(0, 2**40),
    )
)
def test_what_is_described_is_read_back(description: Description) -> None:
    text = sdp.describe(description)
    assert parsed(text) == description
    assert all(line and "\n" not in line for line in text[:-2].split("\r\n"))


def test_credentials_that_nobody_here_knows_are_not_made_up() -> None:
    text = sdp.describe(Description(None, FINGERPRINT, "active", (HOST,)))
    assert "a=ice-" not in text
    assert "i=the ICE credentials" in text
    assert sdp.parse(text) == SdpError(
        "the ICE credentials are missing or malformed (a=ice-ufrag, a=ice-pwd)"
    )


# --- reading -----------------------------------------------------------------------------------


def test_an_offer_of_a_browser_is_read() -> None:
    description = parsed(dos(CHROMIUM_OFFER))
    assert description == Description(
        credentials=IceCredentials("Xy/+", "0123456789abcdefghijkl"),
        fingerprint=FINGERPRINT,
        setup="actpass",
        candidates=(Candidate("srflx", Address("198.51.100.9", 50000), 1677729535, "4"),),
        complete=False,
        mid="data",
    ), "names and TCP are left out, and a base that is withheld is none"


def test_line_ends_do_not_matter() -> None:
    text = dos(FACTS_ANSWER)
    assert parsed(text.replace("\r\n", "\n")) == parsed(text)
    assert parsed("\n  " + text + "\n") == parsed(text)


@pytest.mark.parametrize(
    ("line", "instead", "why"),
    [
        ("v=0", "v=1", "no session description"),
        ("m=application 4433 UDP/DTLS/SCTP webrtc-datachannel", "", "one data-channel section"),
        ("m=application", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\nm=application", "nothing else"),
        ("a=ice-ufrag:abcd1234", "", "credentials"),
        ("a=ice-ufrag:abcd1234", "a=ice-ufrag:abc", "credentials"),
        ("a=ice-ufrag:abcd1234", "a=ice-ufrag:ab cd", "credentials"),
        ("a=ice-pwd:pppp", "a=ice-pwd:\u00e9\u00e9\u00e9\u00e9", "credentials"),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-1", "fingerprint"),
        ("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:", "fingerprint"),
        ("a=setup:passive", "a=setup:holdconn", "DTLS role"),
        ("a=setup:passive", "", "DTLS role"),
        ("a=sctp-port:5000", "a=sctp-port:0", "SCTP port"),
        ("a=sctp-port:5000", "a=sctp-port:70000", "SCTP port"),
        ("a=max-message-size:262144", "a=max-message-size:-1", "message size"),
        ("a=mid:0", "a=mid:", "a=mid"),
    ],
)
def test_what_is_wrong_is_named(line: str, instead: str, why: str) -> None:
    text = dos(FACTS_ANSWER)
    assert line in text
    result = sdp.parse(text.replace(line, instead))
    assert isinstance(result, SdpError)
    assert why in result.why
    assert len(result.why.splitlines()) == 1


@pytest.mark.parametrize(
    "candidate",
    [
        "1 2 udp 2130706431 192.0.2.1 4433 typ host",
        "1 1 tcp 2130706431 192.0.2.1 4433 typ host",
        "1 1 udp 2130706431 host.example 4433 typ host",
        "1 1 udp 2130706431 fe80::1%eth0 4433 typ host",
        "1 1 udp 2130706431 192.0.2.1 0 typ host",
        "1 1 udp 2130706431 192.0.2.1 70000 typ host",
        "1 1 udp 0 192.0.2.1 4433 typ host",
        "1 1 udp 2147483648 192.0.2.1 4433 typ host",
        "1 1 udp 2130706431 192.0.2.1 4433 typ other",
        "1 1 udp 2130706431 192.0.2.1",
        "",
    ],
)
def test_a_candidate_that_we_cannot_use_is_left_out(candidate: str) -> None:
    good = "1 1 udp 2130706431 192.0.2.1 4433 typ host"
    text = dos(FACTS_ANSWER)
    assert parsed(text.replace(good, candidate)).candidates == ()
    assert parsed(text).candidates == (HOST,)


def test_a_description_is_bounded() -> None:
    text = dos(FACTS_ANSWER)
    many = "".join(f"a=candidate:1 1 udp 1 192.0.2.1 {port} typ host\r\n" for port in range(1, 500))
    assert len(parsed(text + many).candidates) == sdp.CANDIDATES_MAX
    assert isinstance(sdp.parse(text + "a=x\r\n" * 1000), SdpError)
    assert isinstance(sdp.parse(text + "a=" + "x" * sdp.TEXT_MAX), SdpError)


@given(st.text(max_size=300))
@example("")
@example("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=candidate:\r\na=mid")
def test_no_text_makes_parse_raise(text: str) -> None:
    assert isinstance(sdp.parse(text), SdpError)


@given(st.data())
def test_no_change_to_a_description_makes_parse_raise(data: st.DataObject) -> None:
    text = dos(data.draw(st.sampled_from([FACTS_ANSWER, CHROMIUM_OFFER])))
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 40))
    changed = text[:at] + data.draw(st.text(max_size=20)) + text[at + cut :]
    assert isinstance(sdp.parse(changed), Description | SdpError)


# --- with stock peers --------------------------------------------------------------------------


def on_asyncio(test: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run on plain asyncio, whatever trio_asyncio has done to the policy."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asyncio.wait_for(test(), 30))


def stock() -> RTCPeerConnection:
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def offered(peer: RTCPeerConnection) -> tuple[str, RTCDataChannel, asyncio.Event]:
    """A complete offer with one channel, and what says that the channel has opened."""
    channel = peer.createDataChannel("test", negotiated=True, id=0)
    opened = asyncio.Event()
    channel.on("open", opened.set)
    await peer.setLocalDescription(await peer.createOffer())
    return peer.localDescription.sdp, channel, opened


async def answered(peer: RTCPeerConnection, offer: str) -> str:
    peer.createDataChannel("test", negotiated=True, id=0)
    await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await peer.setLocalDescription(await peer.createAnswer())
    return str(peer.localDescription.sdp)


def test_stock_peers_open_with_descriptions_that_we_read_and_wrote_again() -> None:
    async def run() -> None:
        caller, callee = stock(), stock()
        try:
            offer, _, opened = await offered(caller)
            again = sdp.describe(parsed(offer))
            assert parsed(again) == parsed(offer)
            answer = sdp.describe(parsed(await answered(callee, again)))
            await caller.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            await opened.wait()
        finally:
            await asyncio.gather(caller.close(), callee.close())

    on_asyncio(run)


def test_a_stock_peer_opens_with_a_fabricated_answer() -> None:
    """The callee never tells it anything: its address, credentials and certificate are known.

    (Here the listener is a stock peer too, told beforehand to be the DTLS server; the transport's
    tests dial our own ICE-lite listener.)
    """

    async def run() -> None:
        caller, callee = stock(), stock()
        try:
            offer, _, opened = await offered(caller)
            assert "a=setup:actpass" in offer
            offer = offer.replace("a=setup:actpass", "a=setup:active")
            known = parsed(await answered(callee, offer))
            assert known.setup == "passive"
            assert known.credentials is not None
            fabricated = sdp.fabricated_answer(
                known.candidates[0].address, known.credentials, known.fingerprint, mid=known.mid
            )
            await caller.setRemoteDescription(RTCSessionDescription(fabricated, "answer"))
            await opened.wait()
        finally:
            await asyncio.gather(caller.close(), callee.close())

    on_asyncio(run)


def test_a_stock_peer_takes_credentials_made_from_a_dial_token() -> None:
    """They are longer than anybody's own: 46 and 43 characters."""
    token = dial.make_token(seeded("dial key"), dial.INVITE, b"invite-1", 2_000_000_000)
    claim = dial.Claim(dial.INVITE, b"invite-1", 2_000_000_000, bytes(range(16)))
    credentials = dial.listener_credentials(token, claim)
    answer = sdp.fabricated_answer(Address("192.0.2.1", 4433), credentials, FINGERPRINT)
    assert parsed(answer).credentials == credentials

    async def run() -> None:
        caller = stock()
        try:
            await offered(caller)
            await caller.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            assert caller.signalingState == "stable"
        finally:
            await caller.close()

    on_asyncio(run)
