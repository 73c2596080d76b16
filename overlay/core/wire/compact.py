"""One idea: an invite in as few bytes as hold it, for links that people copy and scan.

What follows from what stands beside it is not written: the invite key from its seed, and the seed
from the dial token that the issuer makes for the invite; the invite's id, but for three bytes, from
the grant; most of the network's id from its first bytes; the issuer's id where it is a member, too.
Other members' ids are left out: a dial is bound to the certificate's fingerprint, which is whole,
and the hello proves the id. An invite of which this does not hold (an older network's, an older
node's) is written whole.

``head, flags, expiry, issuer, signature, network, id, [seed], [terms], members, name, [more]``
"""

import hashlib
import ipaddress
import struct
from collections.abc import Callable

import msgspec

from overlay.core.types import PeerId
from overlay.core.wire.armour import CHECKSUM_BYTES
from overlay.core.wire.documents import AddressEntry, Grant, InviteBody, InviteMember, Signed
from overlay.errors import LocalProtocolError

VERSION = 2
"""The high half of the first byte. A link's first letter is ``E`` or ``F``; of version 1, ``A``."""
NETWORK_BYTES = 7
"""Random bytes that a network's id is derived from: what tells networks apart, and no secret."""
NONCE_BYTES = 3
"""Random bytes of an invite's id: two of one issuer that expire in the same second differ."""
MEMBERS_MAX = 15
_WHOLE, _TERMS, _MORE = 128, 64, 32  # flags; the other five bits are the length of the name
_LONG_NAME = 31
_ISSUER = 128  # in the byte before a member's addresses, whose number the other bits are
_IPV6, _PROVEN, _SAME_PORT, _SAME_NET = 8, 4, 2, 1  # an address
_ROLE = "member"

PublicOf = Callable[[bytes], PeerId]


class Cut(Exception):
    """The bytes end before the invite does."""


class Odd(Exception):
    """The bytes say what no invite says."""


# --- what is derived ---------------------------------------------------------------------------


def network_id(drawn: bytes) -> bytes:
    """The id of a network from its random bytes, 32 bytes: these first."""
    assert len(drawn) == NETWORK_BYTES
    return drawn + _derived(b"network", drawn)[: 32 - NETWORK_BYTES]


def invite_id(nonce: bytes, network: bytes, issuer: bytes, expires_at: int) -> bytes:
    """The id of an invite, 8 bytes: its random bytes first."""
    named = _derived(b"invite", nonce, network, issuer, struct.pack("!Q", expires_at))
    return nonce + named[: 8 - NONCE_BYTES]


def invite_seed(token: bytes) -> bytes:
    """The seed of the invite key, from the issuer's own dial token for the invite."""
    return _derived(b"seed", token)


def _derived(what: bytes, *parts: bytes) -> bytes:
    return hashlib.sha256(b"overlay " + what + b"\0" + b"".join(parts)).digest()


# --- writing -----------------------------------------------------------------------------------


def write(body: InviteBody, grant: Grant) -> bytes:
    """The invite's payload. LocalProtocolError: it is out of bounds."""
    if len(body.members) > MEMBERS_MAX or grant.expires_at >= 2**32:
        raise LocalProtocolError("an invite of too many members, or for too long")
    whole = not _follows(body, grant)
    terms = (grant.role, grant.uses) != (_ROLE, 0)
    name = body.network_name.encode()
    flags = _WHOLE * whole | _TERMS * terms | min(len(name), _LONG_NAME)
    out = bytearray([VERSION << 4 | len(body.members), flags])
    out += struct.pack("!I", grant.expires_at) + grant.issuer + body.grant.signature
    out += grant.network if whole else grant.network[:NETWORK_BYTES]
    out += grant.invite_id if whole else grant.invite_id[:NONCE_BYTES]
    if whole:
        out += body.seed
    if terms:
        role = grant.role.encode()
        out += bytes([len(role)]) + role + struct.pack("!I", grant.uses)
    for member in body.members:
        out += _member(member, is_issuer=member.peer_id == grant.issuer)
    if len(name) >= _LONG_NAME:
        out.append(len(name) - _LONG_NAME)
    return bytes(out + name)


def _follows(body: InviteBody, grant: Grant) -> bool:
    """Whether ids and seed are those that a reader derives."""
    tokens = [member.token for member in body.members if member.peer_id == grant.issuer]
    nonce, drawn = grant.invite_id[:NONCE_BYTES], grant.network[:NETWORK_BYTES]
    return (
        bool(tokens)
        and body.seed == invite_seed(tokens[0])
        and grant.network == network_id(drawn)
        and grant.invite_id == invite_id(nonce, grant.network, grant.issuer, grant.expires_at)
    )


def _member(member: InviteMember, *, is_issuer: bool) -> bytes:
    addresses = write_addresses(member.addresses)
    head = bytes([_ISSUER * is_issuer | addresses[0]])
    return head + addresses[1:] + member.fingerprint + member.token


def write_addresses(addresses: list[AddressEntry]) -> bytes:
    """Their number, what kind each is, two to a byte, and what differs from the one before it."""
    kinds: list[int] = []
    written = bytearray()
    net, port = b"", -1
    for entry in addresses:
        packed = ipaddress.ip_address(entry.host).packed
        kind = _IPV6 * (len(packed) == 16) | _PROVEN * entry.proven
        if entry.port == port:
            kind |= _SAME_PORT
        else:
            written += struct.pack("!H", entry.port)
        if len(packed) == 16 and packed[:8] == net:
            kind |= _SAME_NET
            written += packed[8:]
        else:
            written += packed
        port, net = entry.port, packed[:8] if len(packed) == 16 else net
        kinds.append(kind)
    pairs = zip(kinds[::2], [*kinds[1::2], 0], strict=False)
    return bytes([len(addresses), *(high << 4 | low for high, low in pairs)]) + bytes(written)


# --- reading -----------------------------------------------------------------------------------


class Reader:
    """Takes bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """The next `count` bytes. Raises Cut."""
        self._at += count
        if self._at > len(self._data):
            raise Cut
        return self._data[self._at - count : self._at]

    def peek(self) -> int:
        """The next byte, which stays."""
        value = self.number(1)
        self._at -= 1
        return value

    def number(self, size: int) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size), "big")

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self._at


def read(payload: bytes, public_of: PublicOf) -> InviteBody:
    """The invite in a payload of this version; its bounds are not checked. Raises Cut and Odd."""
    reader = Reader(payload)
    members = reader.number(1) & 15
    flags = reader.number(1)
    whole = bool(flags & _WHOLE)
    expires_at = reader.number(4)
    issuer, signature = reader.take(32), reader.take(64)
    network = reader.take(32) if whole else network_id(reader.take(NETWORK_BYTES))
    if whole:
        named, seed = reader.take(8), reader.take(32)
    else:
        named, seed = invite_id(reader.take(NONCE_BYTES), network, issuer, expires_at), b""
    role, uses = (
        (_text(reader, reader.number(1)), reader.number(4)) if flags & _TERMS else (_ROLE, 0)
    )
    found = [_read_member(reader, issuer) for _ in range(members)]
    name = _text(reader, _name_length(flags, reader))
    if flags & _MORE:  # A later version's, e.g. the issuer's chain of certificates.
        reader.take(reader.number(2))
    if reader.left:
        raise Odd("bytes after its end")
    if not whole:
        tokens = [member.token for member in found if member.peer_id == issuer]
        if not tokens:
            raise Odd("no seed")
        seed = invite_seed(tokens[0])
    grant = Grant(network, named, public_of(seed), issuer, role, uses, expires_at)
    return InviteBody(Signed(msgspec.msgpack.encode(grant), signature), seed, found, name)


def missing(packed: bytes) -> bool:
    """Whether a damaged payload, its checksum included, ends before it should."""
    try:
        read(packed[: max(0, len(packed) - CHECKSUM_BYTES)], lambda _: PeerId(bytes(32)))
    except Cut:
        return True
    except (Odd, ValueError):
        return False
    return False


def _name_length(flags: int, reader: Reader) -> int:
    length = flags & _LONG_NAME
    return length if length < _LONG_NAME else length + reader.number(1)


def _text(reader: Reader, length: int) -> str:
    try:
        return reader.take(length).decode()
    except UnicodeDecodeError:
        raise Odd("text that is not UTF-8") from None


def _read_member(reader: Reader, issuer: bytes) -> InviteMember:
    is_issuer = bool(reader.peek() & _ISSUER)
    addresses = read_addresses(reader)
    peer = issuer if is_issuer else b""
    return InviteMember(peer, reader.take(32), reader.take(16), addresses)


def read_addresses(reader: Reader) -> list[AddressEntry]:
    """What `write_addresses` wrote; the highest bit of their number is somebody else's."""
    count = reader.number(1) & ~_ISSUER
    pairs = reader.take((count + 1) // 2)
    kinds = [half for pair in pairs for half in (pair >> 4, pair & 15)][:count]
    addresses: list[AddressEntry] = []
    net, port = b"", 0
    for kind in kinds:
        port = port if kind & _SAME_PORT else reader.number(2)
        if not kind & _IPV6:
            packed = reader.take(4)
        else:
            packed = (net if kind & _SAME_NET else reader.take(8)) + reader.take(8)
            if len(packed) != 16:
                raise Odd("an address of half its length")
            net = packed[:8]
        host = str(ipaddress.ip_address(packed))
        addresses.append(AddressEntry(host, port, bool(kind & _PROVEN)))
    return addresses
