"""Where a node listens: the port that it is told, else the last life's, else a new one."""

import logging
import random
import socket

from overlay.core.types import Address
from overlay.errors import ConfigError
from overlay.identity import Identity
from overlay.node.config import WILDCARD, Config, advertised_addresses, listen_address
from overlay.transport.udp.sockets import open_sockets
from overlay.transport.udp.transport import UdpTransport

log = logging.getLogger("overlay.node")


def make_transport(config: Config, identity: Identity, last_port: int) -> UdpTransport:
    """The UDP transport that the configuration asks for; nothing is bound yet."""
    return UdpTransport(
        _address(listen_address(config), last_port),
        dial_key=identity.dial_key,
        certificate=identity.certificate,
        random=random.Random(),
        advertise=advertised_addresses(config),
        hidden=config.links.relay_only,
    )


def _address(wanted: Address, last_port: int) -> Address:
    host = _any_host() if wanted.host == WILDCARD else wanted.host
    last = Address(host, wanted.port or last_port)
    if wanted.port or _is_free(last):
        return last
    log.warning("port_taken: %d was the last life's; invites made then name it in vain", last.port)
    return Address(host, 0)


def _any_host() -> str:
    """The wildcard of both families, or of IPv4 alone where there is no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return "0.0.0.0"
    return "::"


def _is_free(address: Address) -> bool:
    """Whether we could listen there."""
    try:
        for each in open_sockets(address):
            each.close()
    except ConfigError:
        return False
    return True
