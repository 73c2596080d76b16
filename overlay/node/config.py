"""One idea: what a node can be told: one table of keys, three ways to set them, strict about all.

A key comes from the TOML file, then the environment (``OVERLAY_LINKS_DIRECT=false``), then
``--set KEY=VALUE``, then a flag of its own (``--listen``); the last one wins. Whatever is wrong is
a `ConfigError` of one line that names where it stood, the key, and what is allowed there. The
structs below are the only place where a key, its default, its limits and its meaning are written.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from overlay import names, tables
from overlay.core.addresses import is_loopback, needs_zone
from overlay.core.types import Address
from overlay.errors import ConfigError
from overlay.names import plain
from overlay.tables import Key, Reader, Table, Unfit

ENVIRONMENT = "OVERLAY_"
RESERVED = frozenset({"OVERLAY_CONFIG", "OVERLAY_DATA_DIR"})
"""Variables that stand for command-line options and are no keys."""
SERVICE = re.compile(
    r"OVERLAY(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes tells its containers of a service whose name begins with `overlay`."""
WILDCARD = "*"
"""The host part of ``listen`` that means: all addresses of both families."""


# --- the forms of values -----------------------------------------------------------------------

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_DURATION = 365 * 86400


def parse_duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``30m``, ``12h`` or ``7d``; ValueError when it is none."""
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([smhd]?)\s*", text)
    if match is None:
        raise ValueError(text)
    seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 < seconds <= MAX_DURATION:
        raise ValueError(text)
    return seconds


def parse_address(text: str) -> Address:
    """The address in ``IP:PORT`` or ``[IPv6]:PORT``; ValueError when it is none.

    An IPv4-mapped one (RFC 4291 §2.5.5.2) is IPv4. `Unfit`: no single host can have it.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ValueError(text)
    bracketed = host.startswith("[") and host.endswith("]")
    ip = ipaddress.IPv6Address(host[1:-1]) if bracketed else ipaddress.IPv4Address(host)
    if "%" in host:
        raise Unfit(f"{text}: a zone (%) means nothing to others: name an address without one")
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_multicast:
        raise Unfit(f"{text} is a group of hosts, and no one of them answers: name a host's own")
    if _is_nobodys(ip):
        raise Unfit(f"{text} is no address that a host can have: name one of this machine")
    return Address(str(ip), int(port))


def _is_nobodys(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """RFC 6890: "this network", broadcast, reserved; IPv4-compatible (RFC 4291 §2.5.5.1)."""
    if ip.is_unspecified or ip.is_loopback:
        return False
    number = int(ip)
    return number >> 24 == 0 or number >> 28 == 0xF if ip.version == 4 else number >> 32 == 0


def parse_listen(text: str) -> Address:
    """Where to listen: as `parse_address`, or ``*:PORT``."""
    if text.strip().startswith(f"{WILDCARD}:"):
        return parse_address(text.replace(WILDCARD, "0.0.0.0", 1))._replace(host=WILDCARD)
    address = parse_address(text)
    if needs_zone(address.host):
        raise Unfit(f"{text} is on each link: listen on *:{address.port}, which includes it")
    return address


def parse_advertised(text: str) -> Address:
    """Where others reach us: as `parse_address`, if anybody could send there."""
    address = parse_address(text)
    if address.host in ("0.0.0.0", "::"):
        raise Unfit(f"{text} means every address of a machine: name the one that others reach")
    if address.port == 0:
        raise Unfit(f"{text}: nobody can send to port 0: name the one that leads here")
    return address


def _check_advertise(texts: list[str]) -> None:
    for text in texts:
        parse_advertised(text)


def _check_stun(text: str) -> None:
    if text:
        parse_advertised(text)


def _check_guests(text: str) -> None:
    if not 1.0 <= parse_duration(text) <= 600.0:
        raise ValueError(text)


def _check_name(text: str) -> None:
    if why := names.complaint(text):
        raise Unfit(why)


def _check_own_name(text: str) -> None:
    if text:
        _check_name(text)


# --- the keys ----------------------------------------------------------------------------------


class NetworkSection(Table, frozen=True, kw_only=True):
    """The network that this node creates when it joins none."""

    name: Annotated[
        str,
        Meta(
            description="What people call the network that a first `overlay up` creates. "
            "A node that joins takes the name from its invite.",
            extra={
                "allowed": "a name of 1 to 64 characters that can be seen",
                "check": _check_name,
                "source": "guess",
            },
        ),
    ] = "mesh"


class LinksSection(Table, frozen=True, kw_only=True):
    """Which links this node opens, and how many."""

    direct: Annotated[
        bool,
        Meta(
            description="Whether members known by gossip alone may be dialled directly. When "
            "false, only members that an invite or the cache names are dialled; "
            "links to all others are negotiated through the mesh.",
            extra={"source": "guess"},
        ),
    ] = True
    auto: Annotated[
        bool,
        Meta(
            description="Whether links open that no command asked for. When false, only `join` "
            "and `connect` open links (peers may still link to us).",
            extra={"source": "guess"},
        ),
    ] = True
    max: Annotated[
        int,
        Meta(
            ge=2,
            le=128,
            description="Links that this node keeps, and two more for others that reach far by "
            "them; any beyond are guests, which leave after `links.guests`. More links spread load "
            "and survive more failures, each costs "
            "about 100 KiB and five small questions in six seconds.",
            extra={"source": "guess"},
        ),
    ] = 12
    full_mesh: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Up to this many nodes, everybody links to everybody. 0 turns it off.",
            extra={"source": "guess"},
        ),
    ] = 8
    active: Annotated[
        int,
        Meta(
            ge=2,
            le=32,
            description="Neighbours that this node gossips with once there are more nodes than "
            "that: HyParView's active view. More of them lose less when many nodes die at once, "
            "and each carries every message once more. At most `links.max`.",
            extra={"source": "paper"},
        ),
    ] = 5
    passive: Annotated[
        int,
        Meta(
            ge=4,
            le=256,
            description="Members kept in mind to replace neighbours that die: HyParView's passive "
            "view. It should be several times the active one.",
            extra={"source": "paper"},
        ),
    ] = 30
    guests: Annotated[
        str,
        Meta(
            description="How long a link stays open that gossip has no use for, such as the one "
            "to a newcomer that has meanwhile been handed on. Links that `connect` opened stay.",
            extra={
                "allowed": "a duration from 1s to 10m",
                "source": "guess",
                "check": _check_guests,
            },
        ),
    ] = "30s"
    circuits: Annotated[
        bool,
        Meta(
            description="Whether members that cannot be reached otherwise are reached over "
            "circuits, which a common neighbour carries. When false, a pair whose NATs let no "
            "direct path through stays apart.",
            extra={"source": "guess"},
        ),
    ] = True
    relay_only: Annotated[
        bool,
        Meta(
            description="Privacy: whether other members learn no address of this host. They reach "
            "it over circuits alone, which members carry that its invite has named; packets go to "
            "those only. It relays for nobody, and others cannot dial it.",
            extra={"source": "guess"},
        ),
    ] = False


class RelaySection(Table, frozen=True, kw_only=True):
    """What this node carries for neighbours that reach each other in no other way."""

    serve: Annotated[
        bool,
        Meta(
            description="Whether this node relays for neighbours. It learns who talks to whom and "
            "how much, and nothing of what they say.",
            extra={"source": "guess"},
        ),
    ] = True
    rate: Annotated[
        int,
        Meta(
            ge=10_000,
            le=1_000_000_000,
            description="Bytes a second that one circuit may carry, both ways together.",
            extra={"source": "guess"},
        ),
    ] = 5_000_000
    bytes_per_day: Annotated[
        int,
        Meta(
            ge=0,
            le=tables.UNLIMITED,
            description="Bytes that this node relays within a day at most, for all together; 0: "
            "none at all.",
            extra={"source": "guess"},
        ),
    ] = 10_000_000_000


def _check_low_ttl(value: int) -> None:
    if value and not 3 <= value <= 6:
        raise ValueError(value)


class NatSection(Table, frozen=True, kw_only=True):
    """What this node does about NATs, its own and its neighbours'."""

    stun: Annotated[
        str,
        Meta(
            description="A STUN server that may tell this node where it sees it: asked only by "
            "`overlay offer` and `overlay answer`, until the offer expires. Empty: nobody is.",
            extra={
                "allowed": '"IP:PORT" or "[IPv6]:PORT", or nothing for none',
                "check": _check_stun,
                "source": "guess",
            },
        ),
    ] = ""

    low_ttl: Annotated[
        int,
        Meta(
            description="How many routers the first packets to a peer that has offered a link may "
            "pass: enough to get out through the own NAT (behind a carrier's, three), and too few "
            "to reach the peer's, which might hold it against us. 0: as many as any other's.",
            extra={"allowed": "0, or 3 to 6", "check": _check_low_ttl, "source": "measured"},
        ),
    ] = 4

    prediction: Annotated[
        bool,
        Meta(
            description="Whether a relayed link is made direct by foretelling the ports of a NAT "
            "that numbers them, this node's or the peer's.",
            extra={"source": "measured"},
        ),
    ] = True

    birthday: Annotated[
        bool,
        Meta(
            description="Whether a relayed link is made direct past a NAT that draws ports by "
            "chance, this node's or the peer's: 256 sockets at that end, up to 2,500 probes of "
            "the other's in five seconds, at an address that two neighbours see the peer at. "
            "It takes 384 file descriptors (`ulimit -n`).",
            extra={"source": "measured"},
        ),
    ] = True

    knock: Annotated[
        bool,
        Meta(
            description="Whether this node, if strangers reach it, helps neighbours to find out "
            "what their NATs do: two packets of 28 bytes to an address at which it sees the "
            "neighbour, at most one a second for a prefix.",
            extra={"source": "guess"},
        ),
    ] = True


class InviteSection(Table, frozen=True, kw_only=True):
    """What `overlay invite` puts into a link unless told otherwise."""

    expires: Annotated[
        str,
        Meta(
            description="How long an invite is good for: seconds, or a number with s, m, h or d.",
            extra={
                "allowed": "a duration such as 90s, 30m, 12h or 7d, at most 365d",
                "check": parse_duration,
            },
        ),
    ] = "7d"
    members: Annotated[
        int,
        Meta(
            ge=1,
            le=4,
            description="How many members an invite names. Each is one more that may be asleep "
            "when the link is used, and makes the link longer.",
            extra={"source": "guess"},
        ),
    ] = 4


class LogSection(Table, frozen=True, kw_only=True):
    """What the log says, and how."""

    level: Annotated[
        str,
        Meta(
            pattern="^(debug|info|warning|error)$",
            description="The least important event that is still logged.",
            extra={"source": "guess"},
        ),
    ] = "info"
    format: Annotated[
        str,
        Meta(
            pattern="^(text|json)$",
            description="`text` for people, `json` for programs: one object a line.",
            extra={"source": "guess"},
        ),
    ] = "text"
    file: Annotated[
        str,
        Meta(
            max_length=4096,
            description="A file to append to, made with mode 0600; empty: standard error.",
            extra={"allowed": "a path, or nothing for standard error", "source": "guess"},
        ),
    ] = ""


class Config(Table, frozen=True, kw_only=True):
    """Everything that a node can be told."""

    name: Annotated[
        str,
        Meta(
            description="What other members see beside this node's peer id; commands accept it in "
            "place of the id. Empty: the last one that this data directory was given, or else this "
            "machine's host name.",
            extra={
                "allowed": "a name of at most 64 characters that can be seen",
                "check": _check_own_name,
                "source": "guess",
            },
        ),
    ] = ""
    listen: Annotated[
        str,
        Meta(
            description="The UDP address of this node. `*` is every address of both families; "
            "port 0 is a random one, chosen at the first start and kept.",
            extra={
                "allowed": '"IP:PORT", "[IPv6]:PORT" or "*:PORT"',
                "source": "guess",
                "check": parse_listen,
            },
        ),
    ] = "*:0"
    advertise: Annotated[
        list[str],
        Meta(
            max_length=8,
            description="Addresses at which this node can be reached from outside, when it cannot "
            "know them itself (a port forwarded by hand). Invites name them.",
            extra={
                "allowed": 'at most 8 of "IP:PORT", with a comma between',
                "source": "guess",
                "check": _check_advertise,
            },
        ),
    ] = msgspec.field(default_factory=list)
    network: NetworkSection = NetworkSection()
    links: LinksSection = LinksSection()
    relay: RelaySection = RelaySection()
    nat: NatSection = NatSection()
    invite: InviteSection = InviteSection()
    log: LogSection = LogSection()


def listen_address(config: Config) -> Address:
    """Where the node is to listen; host ``*`` and port 0 leave the choice to the node."""
    return parse_listen(config.listen)


def advertised_addresses(config: Config) -> tuple[Address, ...]:
    """What the user says is reachable from outside."""
    return tuple(map(parse_advertised, config.advertise))


def stun_server(config: Config) -> Address | None:
    """Whom the user lets us ask where we are."""
    return parse_advertised(config.nat.stun) if config.nat.stun else None


# --- the sources -------------------------------------------------------------------------------


def keys() -> dict[str, Key]:
    """Every key by its dotted name, in the order of the file."""
    return {
        f"{name.strip('[]')}.{key.name}".lstrip("."): key
        for name, table in tables.tables(Config)
        for key in tables.keys(table)
    }


def variable(name: str) -> str:
    """The environment variable that sets a key."""
    return ENVIRONMENT + name.replace(".", "_").upper()


def users_own() -> Path | None:
    """The file of settings that needs no option, where there is one."""
    import platformdirs

    path = Path(platformdirs.user_config_dir("overlay", appauthor=False)) / "config.toml"
    return path if path.is_absolute() and os.path.lexists(path) else None


def load(
    path: Path | None,
    environ: Mapping[str, str],
    assignments: Iterable[str] = (),
    flags: Mapping[str, tuple[str, str]] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Config:
    """The configuration from all its sources; ConfigError says in one line what is wrong.

    `assignments` are the ``--set`` options; `flags` maps a key to (option, text). `warn` takes a
    line about variables of `environ` that look like ours and mean nothing to us.
    """
    config = Config()
    if path:
        config = Reader(str(path), names=keys()).table(Config, tables.content_of(path))
    assigned = [("--set", *tables.assignment(text)) for text in assignments]
    flagged = [(option, key, text) for key, (option, text) in (flags or {}).items()]
    if strange := _strangers(environ):
        warn(strange)
    return _with(config, [*_from_environment(environ), *assigned, *flagged])


def of_settings(values: Mapping[str, Any]) -> Config:
    """The configuration of a program: a value for each key named, the defaults for the rest."""
    return _with(Config(), [("settings", key, value) for key, value in values.items()])


def _with(config: Config, settings: Iterable[tuple[str, str, Any]]) -> Config:
    """With these values: where each stood, its key, and itself; texts stand for other types."""
    table = keys()
    for where, name, value in settings:
        reader = Reader(where)
        if name not in table:
            raise reader.wrong(name, f"no such key{tables.nearest(name, table)}")
        read = reader.plain(table[name].kind, value, name, is_text=isinstance(value, str))
        config = _replaced(config, name, read)
    if config.links.active > config.links.max:
        raise ConfigError(
            f"links.active: the view of {config.links.active} has no room in links.max = "
            f"{config.links.max}: lower the one or raise the other"
        )
    if config.links.relay_only and config.advertise:
        raise ConfigError(
            "advertise: with links.relay_only nobody is told an address: leave one of the two out"
        )
    if config.links.relay_only and not config.links.circuits:
        raise ConfigError(
            "links.circuits: with links.relay_only nothing else leads to this node: leave one out"
        )
    if not is_loopback(listen_address(config).host):
        for each in advertised_addresses(config):
            if is_loopback(each.host):
                raise ConfigError(
                    f"advertise: {each} is this machine to whoever sends there: name an address "
                    "that others reach, or listen on loopback, too"
                )
    return config


def _replaced(table: Any, name: str, value: Any) -> Any:
    first, _, rest = name.partition(".")
    inner = _replaced(getattr(table, first), rest, value) if rest else value
    return msgspec.structs.replace(table, **{first: inner})


def _from_environment(environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    variables = {variable(name): name for name in keys()}
    return [(each, variables[each], environ[each]) for each in sorted(environ) if each in variables]


def _strangers(environ: Mapping[str, str]) -> str:
    """A line about the variables that begin like ours and are none; empty without any.

    They may be anybody's: Kubernetes sets eight for a service that is called `overlay`.
    """
    variables = {variable(name) for name in keys()}
    unknown = [
        name
        for name in sorted(environ)
        if name.startswith(ENVIRONMENT) and name not in variables | RESERVED
    ]
    if not unknown:
        return ""
    services = [name for name in unknown if SERVICE.fullmatch(name)]
    said = [f"{plain(name)}{_meant(name, variables)}" for name in unknown if name not in services]
    if services:
        said.append(f"{plain(', '.join(services))} (as Kubernetes sets for a service)")
    return f"no setting, and passed over: {', '.join(said)}"


def _meant(name: str, variables: Iterable[str]) -> str:
    """A hint at the nearest variable. The part that all of them share says nothing."""
    rest = {each.removeprefix(ENVIRONMENT): each for each in variables}
    close = difflib.get_close_matches(name.removeprefix(ENVIRONMENT), rest, n=1, cutoff=0.6)
    return f" (did you mean {rest[close[0]]}?)" if close else ""
