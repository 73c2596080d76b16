"""Session descriptions of data channels (RFC 8866, 8839, 8841): written, fabricated and read.

Our own nodes need none between each other; a stock WebRTC peer, and people who look, do.
"""

import ipaddress
import re
from dataclasses import dataclass

from overlay.core.addresses import candidate_priority
from overlay.core.types import Address, Candidate, IceCredentials
from overlay.core.wire.bounds import ICE_CHARS

TEXT_MAX = 65_536
LINES_MAX = 1_000
CANDIDATES_MAX = 64
MAX_MESSAGE_SIZE = 262_144
"""Bytes of one message on a data channel: what aiortc and browsers say (RFC 8841 §6)."""
DEFAULT_MESSAGE_SIZE = 65_536
"""Where a description does not say (RFC 8841 §6.1)."""
SCTP_PORT = 5000
SETUPS = ("actpass", "active", "passive")
# No candidate yet (RFC 8840 §4.1.1), or an address that is withheld (RFC 8839 §5.1).
_DISCARD = Address("0.0.0.0", 9)
_MEDIA = re.compile(r"application (\d{1,5}) (?:UDP/)?DTLS/SCTP webrtc-datachannel")
_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2}")
_CANDIDATE = re.compile(
    r"(?P<foundation>[A-Za-z0-9+/]{1,32}) (?P<component>\d{1,3}) (?P<transport>\S{1,16}) "
    r"(?P<priority>\d{1,10}) (?P<host>\S{1,255}) (?P<port>\d{1,5}) typ "
    r"(?P<kind>host|srflx|prflx|relay)(?: raddr (?P<base>\S{1,255}) rport (?P<base_port>\d{1,5}))?"
    r"(?: .*)?"
)


@dataclass(frozen=True, slots=True)
class Description:
    """One side of a session with one data-channel section and one ICE component."""

    credentials: IceCredentials | None
    """None where nobody here knows them: the dialler's password, at a lite listener."""
    fingerprint: bytes
    """SHA-256 of the DTLS certificate, 32 bytes."""
    setup: str
    """``actpass`` (offers), ``active`` (DTLS client) or ``passive`` (RFC 4145, 5763)."""
    candidates: tuple[Candidate, ...]
    lite: bool = False
    complete: bool = True
    """No further candidates will trickle in."""
    mid: str = "0"
    sctp_port: int = SCTP_PORT
    max_message_size: int = MAX_MESSAGE_SIZE


@dataclass(frozen=True, slots=True)
class SdpError:
    """Why a text is no description that we can use; one line for people."""

    why: str


# --- writing -----------------------------------------------------------------------------------


def fabricated_answer(
    address: Address,
    credentials: IceCredentials,
    fingerprint: bytes,
    *,
    mid: str = "0",
    more: tuple[Address, ...] = (),
) -> str:
    """The answer of an ICE-lite listener, written by its dialler: nothing was signalled.

    `credentials` come from `overlay.core.wire.dial_tokens.listener_credentials`; `more` are further
    addresses of the same node, in order of preference.
    """
    candidates = tuple(
        Candidate("host", each, candidate_priority("host", rank), foundation=str(rank + 1))
        for rank, each in enumerate((address, *more))
    )
    return describe(
        Description(credentials, fingerprint, "passive", candidates, lite=True, mid=mid)
    )


def describe(description: Description) -> str:
    """A complete description, lines ended by CR LF, for ICE-lite and for full ICE."""
    at = description.candidates[0].address if description.candidates else _DISCARD
    network = f"IN {'IP6' if ':' in at.host else 'IP4'} {at.host}"
    credentials = description.credentials
    lines = ["v=0", f"o=- 1 1 {network}", "s=-"]
    if credentials is None:
        lines.append("i=the ICE credentials of this side are known to that side alone")
    lines.append("t=0 0")
    if description.lite:
        lines.append("a=ice-lite")
    lines += [
        f"a=group:BUNDLE {description.mid}",
        f"m=application {at.port} UDP/DTLS/SCTP webrtc-datachannel",
        f"c={network}",
        f"a=mid:{description.mid}",
    ]
    if credentials is not None:
        lines += [f"a=ice-ufrag:{credentials.ufrag}", f"a=ice-pwd:{credentials.password}"]
    lines += [
        f"a=fingerprint:sha-256 {description.fingerprint.hex(':').upper()}",
        f"a=setup:{description.setup}",
        f"a=sctp-port:{description.sctp_port}",
        f"a=max-message-size:{description.max_message_size}",
        *(f"a=candidate:{_candidate_line(each)}" for each in description.candidates),
    ]
    if description.complete:
        lines.append("a=end-of-candidates")
    return "\r\n".join(lines) + "\r\n"


def _candidate_line(candidate: Candidate) -> str:
    """RFC 8839 §5.1; the base of a learnt candidate may be withheld as 0.0.0.0 and port 9."""
    host, port = candidate.address
    line = f"{candidate.foundation} 1 udp {candidate.priority} {host} {port} typ {candidate.kind}"
    if candidate.kind == "host":
        return line
    base = candidate.base or _DISCARD
    return f"{line} raddr {base.host} rport {base.port}"


# --- reading -----------------------------------------------------------------------------------


def parse(text: str) -> Description | SdpError:
    """An offer or answer of a stock peer. Never raises.

    Candidates that we cannot use (TCP, other components, host names) are left out. Attributes
    that say nothing to us are ignored.
    """
    if len(text) > TEXT_MAX:
        return SdpError(f"a session description has at most {TEXT_MAX} characters")
    lines = [line for line in re.split(r"\r\n|\n|\r", text.strip()) if line.strip()]
    if not lines or lines[0].strip() != "v=0" or len(lines) > LINES_MAX:
        return SdpError("this is no session description: one begins with the line `v=0`")
    media = [line[2:].strip() for line in lines if line.startswith("m=")]
    if len(media) != 1 or not _MEDIA.fullmatch(media[0]):
        return SdpError("the description must have one data-channel section and nothing else")
    return _read(_attributes(lines))


def _attributes(lines: list[str]) -> dict[str, list[str]]:
    """All values of each attribute; the section inherits what the session level says.

    With one section only, a value of the section simply comes after the session's.
    """
    attributes: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("a="):
            name, _, value = line[2:].strip().partition(":")
            attributes.setdefault(name, []).append(value.strip())
    return attributes


def _read(attributes: dict[str, list[str]]) -> Description | SdpError:
    """The description that these attributes make, or the first thing that is wrong."""

    def last(name: str, default: str) -> str:
        return attributes.get(name, [default])[-1]

    ufrag, password = last("ice-ufrag", ""), last("ice-pwd", "")
    if not _is_ice(ufrag, 4) or not _is_ice(password, 22):
        return SdpError("the ICE credentials are missing or malformed (a=ice-ufrag, a=ice-pwd)")
    fingerprint = _fingerprint(attributes.get("fingerprint", []))
    if fingerprint is None:
        return SdpError("the certificate's SHA-256 fingerprint is missing (a=fingerprint)")
    setup = last("setup", "")
    if setup not in SETUPS:
        return SdpError("the DTLS role is missing or unknown (a=setup)")
    port = _number(last("sctp-port", str(SCTP_PORT)), 65_535)
    size = _number(last("max-message-size", str(DEFAULT_MESSAGE_SIZE)), 2**63 - 1)
    if not port or size is None:
        return SdpError("the SCTP port or the message size is no number in range")
    mid = last("mid", "0")
    if not re.fullmatch(r"[!-~]{1,16}", mid):
        return SdpError("the section's name is malformed (a=mid)")
    candidates = tuple(filter(None, map(_candidate, attributes.get("candidate", []))))
    return Description(
        credentials=IceCredentials(ufrag, password),
        fingerprint=fingerprint,
        setup=setup,
        candidates=candidates[:CANDIDATES_MAX],
        lite="ice-lite" in attributes,
        complete="end-of-candidates" in attributes,
        mid=mid,
        sctp_port=port,
        max_message_size=size,
    )


def _is_ice(text: str, least: int) -> bool:
    """RFC 8839 §5.4."""
    return least <= len(text) <= 256 and ICE_CHARS.issuperset(text)


def _fingerprint(values: list[str]) -> bytes | None:
    """The SHA-256 one of several (RFC 8122 §5)."""
    for value in values:
        name, _, digits = value.partition(" ")
        if name.lower() == "sha-256" and _FINGERPRINT.fullmatch(digits.strip()):
            return bytes.fromhex(digits.replace(":", ""))
    return None


def _number(text: str, highest: int) -> int | None:
    if not re.fullmatch(r"[0-9]{1,19}", text):
        return None
    return int(text) if int(text) <= highest else None


def _candidate(value: str) -> Candidate | None:
    """A candidate of component 1 over UDP with an IP address, or None (RFC 8839 §5.1)."""
    match = _CANDIDATE.fullmatch(value)
    if match is None or match["component"] != "1" or match["transport"].lower() != "udp":
        return None
    address = _address(match["host"], match["port"])
    priority = _number(match["priority"], 2**31 - 1)
    if address is None or not address.port or not priority:
        return None
    base = _address(match["base"], match["base_port"]) if match["base"] else None
    withheld = base is None or base.port == 9 or base.host in {"0.0.0.0", "::"}
    base = None if withheld else base
    return Candidate(match["kind"], address, priority, match["foundation"], base)


def _address(host: str, port: str) -> Address | None:
    number = _number(port, 65_535)
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return None
    if number is None or "%" in host:
        return None
    return Address(str(parsed), number)
