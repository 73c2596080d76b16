"""What a datagram without an association gets: plain STUN, an answer to its check, a cookie.

Every answer is a function of one datagram and the two keys; all that is kept is bounded tables.
"""

from collections import Counter
from collections.abc import Callable

from overlay.core.addresses import is_circuit
from overlay.core.endpoint.dtls_cookie import (
    ClientHello,
    cookie_ok,
    hello_verify_request,
    make_cookie,
)
from overlay.core.events import Seen
from overlay.core.ice import stun
from overlay.core.ice.lite import HalfOpenChecks, answer, new_check
from overlay.core.ice.outputs import AddressPair
from overlay.core.limits import (
    BURST,
    RATE,
    SOURCES_MAX,
    Allowance,
    BoundedDict,
    TokenBuckets,
    source_of,
)
from overlay.core.types import Address, IceCredentials
from overlay.core.wire import dial_tokens as dial

AWAITED_MAX = 64
"""Transaction ids that the core waits for (guess); of more, the oldest is forgotten."""


class Strangers:
    """Those without an association: everybody may ask, and nobody costs much."""

    def __init__(
        self,
        dial_key: bytes,
        cookie_key: bytes,
        counters: Counter[str],
        emit: Callable[[Seen], None],
    ) -> None:
        self.checks = HalfOpenChecks()
        self.allowance = Allowance()
        self.buckets = TokenBuckets[str](RATE, BURST, SOURCES_MAX)
        # Wall time less `now`; None: unknown, and no token is valid yet.
        self.wall_offset: float | None = None
        self._awaited: BoundedDict[bytes, None] = BoundedDict(AWAITED_MAX)
        self._emit = emit
        self._dial_key = dial_key
        self._cookie_key = cookie_key
        self._counters = counters

    def admits(self, remote: Address, now: float) -> bool:
        """Whether its source may have one more datagram looked at."""
        if self.buckets.take(source_of(remote), now):
            return True
        self._counters["rate_limited"] += 1
        return False

    def wait_for(self, transaction: bytes) -> None:
        """The core wants to know from where STUN with this transaction id comes."""
        self._awaited.put(transaction, None)

    def look_out(self, message: stun.Message, remote: Address) -> None:
        """Tell the core if it waits for this message; once only."""
        if self._awaited.pop(message.transaction_id, self) is None:
            self._emit(Seen(message.transaction_id, remote))

    def take_answer(self, response: stun.Message, pair: AddressPair) -> bool:
        """Tell the core if it has asked for this, without a check; once only. Whether it had."""
        mapped = response.mapped_address
        if mapped is None or self._awaited.pop(response.transaction_id, self) is not None:
            return False
        self._emit(Seen(response.transaction_id, pair[0], mapped, pair[1]))
        return True

    def serve(self, request: stun.Message, remote: Address) -> bytes:
        """Plain STUN (RFC 8489 §6.3.1): tell the asker its address."""
        if request.unknown_required:  # RFC 8489 §6.3.1
            return stun.encode(stun.binding_error(request, 420), None)
        self._counters["stun_served"] += 1
        return stun.encode(stun.binding_success(request, remote), None)

    def answer_check(
        self, request: stun.Message, username: str, pair: AddressPair, now: float
    ) -> bytes:
        """The answer to a check for a USERNAME that no association has.

        With a valid token the check is half-open: a ClientHello from there is welcome for 10 s.
        """
        known = self.checks.get(username, now)
        if known is not None:
            opened: tuple[IceCredentials, dial.Claim] | None = (known.local, known.claim)
        else:
            expired = self.checks.is_expired(username)
            opened = None if expired else self._open(username, pair[0], now)
        key = opened[0].password.encode() if opened else b""
        if opened is None or not request.integrity_ok(key):
            self._counters["refused_token"] += 1
            # RFC 8489 §9.1.3: 400 where the integrity is missing, 401 where it is wrong.
            code = 401 if request.integrity_at else 400
            return stun.encode(stun.binding_error(request, code), None)
        data, accepted = answer(request, key, pair[0])
        if accepted:
            if known is None:
                known = new_check(username, *opened, pair[0].host, now)
                self.checks.add(known)
            self.checks.checked(known, pair, request.use_candidate)
        return data

    def greet(self, hello: ClientHello, remote: Address, now: float) -> bytes | None:
        """A HelloVerifyRequest, or None when the cookie proves that `remote` receives.

        Nor has an address to be proven where a verified link to a relay leads: over a circuit.
        """
        if is_circuit(remote) or cookie_ok(self._cookie_key, remote, hello.cookie, now):
            return None
        if hello.cookie:
            self._counters["refused_cookie"] += 1
        return hello_verify_request(hello, make_cookie(self._cookie_key, remote, now))

    def _open(
        self, username: str, remote: Address, now: float
    ) -> tuple[IceCredentials, dial.Claim] | None:
        """Our side's credentials and the claim of a dial, if its token has not expired."""
        ufrag = username.partition(":")[0]
        claim = dial.parse_ufrag(ufrag)
        if claim is None or self.wall_offset is None:
            return None
        if claim.expires_at <= now + self.wall_offset:
            return None
        if claim.kind == dial.CIRCUIT and not is_circuit(remote):
            return None
        token = dial.make_token(self._dial_key, claim.kind, claim.token_id, claim.expires_at)
        return IceCredentials(ufrag, dial.listener_password(token, ufrag)), claim
