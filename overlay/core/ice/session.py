"""What the two sides of an ICE session hold against each other: credentials and roles."""

from overlay.core.ice import stun
from overlay.core.types import IceCredentials

MAX_ROLE_SWITCHES = 4
"""Two peers with different tie-breakers need one (RFC 8445 §7.3.1.1)."""


class Session:
    """Signs our checks, authenticates the peer's, and settles which side controls."""

    def __init__(self, controlling: bool, local: IceCredentials, tie_breaker: int) -> None:
        self.controlling = controlling
        self.local = local
        self.remote: IceCredentials | None = None
        self._tie_breaker = tie_breaker
        self._role_switches = 0

    def key_of(self, request: stun.Message) -> bytes | None:
        """The password that protects this request, if it is meant for us and authentic."""
        # RFC 8445 §7.2.2: the sender puts the receiver's user fragment first.
        ufrag, _, theirs = (request.username or "").partition(":")
        if ufrag != self.local.ufrag or (self.remote is not None and theirs != self.remote.ufrag):
            return None
        key = self.local.password.encode()
        return key if request.integrity_ok(key) else None

    def check(self, transaction_id: bytes, priority: int, nominate: bool) -> tuple[bytes, bytes]:
        """The bytes of a check of ours and the key of its answer (RFC 8445 §7.1, §7.2.2)."""
        assert self.remote is not None
        request = stun.binding_request(
            transaction_id,
            username=f"{self.remote.ufrag}:{self.local.ufrag}",
            priority=priority,
            controlling=self._tie_breaker if self.controlling else None,
            controlled=None if self.controlling else self._tie_breaker,
            use_candidate=nominate,
        )
        key = self.remote.password.encode()
        return stun.encode(request, key), key

    def conflicts(self, request: stun.Message) -> bool:
        """Whether the peer claims the role that we hold."""
        theirs = request.ice_controlling if self.controlling else request.ice_controlled
        return theirs is not None

    def keeps_role(self, request: stun.Message) -> bool:
        """Of two that claim one role the larger tie-breaker controls (RFC 8445 §7.3.1.1)."""
        theirs = request.ice_controlling if self.controlling else request.ice_controlled
        return theirs is not None and (self._tie_breaker >= theirs) is self.controlling

    def switch_role(self) -> bool:
        """Take the other role. False: too often already, the peer does not play by the rules."""
        if self._role_switches == MAX_ROLE_SWITCHES:
            return False
        self._role_switches += 1
        self.controlling = not self.controlling
        return True
