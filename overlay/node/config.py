"""What a node can be told: one table of keys, three ways to set them, strict about all.

A key comes from the TOML file, then the environment (``OVERLAY_LINKS_DIRECT=false``), then
``--set KEY=VALUE``, then a flag of its own (``--listen``); the last one wins. Whatever is wrong is
a `ConfigError` of one line that names where it stood, the key, and what is allowed there. The
structs below are the only place where a key, its default, its limits and its meaning are written.
"""

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Meta

from overlay.core.types import Address
from overlay.errors import ConfigError

ENVIRONMENT = "OVERLAY_"
RESERVED = frozenset({"OVERLAY_CONFIG", "OVERLAY_DATA_DIR"})
"""Variables that stand for command-line options and are no keys."""
WILDCARD = "*"
"""The host part of ``listen`` that means: all addresses of both families."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class NetworkSection(Section, frozen=True, kw_only=True):
    """The network that this node creates when it joins none."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            description="What people call the network that a first `overlay up` creates. "
            "A node that joins takes the name from its invite.",
            extra={"allowed": "a text of 1 to 64 characters", "source": "guess"},
        ),
    ] = "mesh"


class LinksSection(Section, frozen=True, kw_only=True):
    """Which links this node opens, and how many."""

    direct: Annotated[
        bool,
        Meta(
            description="Whether members known by gossip alone may be dialled directly. When "
            "false, only members that an invite or the cache names are dialled; "
            "links to all others are negotiated through the mesh.",
            extra={"allowed": "true or false", "source": "guess"},
        ),
    ] = True
    auto: Annotated[
        bool,
        Meta(
            description="Whether links open that no command asked for. When false, only `join` "
            "and `connect` open links (peers may still link to us).",
            extra={"allowed": "true or false", "source": "guess"},
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
            "about 100 KiB and a check every 2 s.",
            extra={"allowed": "a whole number from 2 to 128", "source": "guess"},
        ),
    ] = 12
    full_mesh: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Up to this many nodes, everybody links to everybody. 0 turns it off.",
            extra={"allowed": "a whole number from 0 to 64", "source": "guess"},
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
            extra={"allowed": "a whole number from 2 to 32", "source": "paper"},
        ),
    ] = 5
    passive: Annotated[
        int,
        Meta(
            ge=4,
            le=256,
            description="Members kept in mind to replace neighbours that die: HyParView's passive "
            "view. It should be several times the active one.",
            extra={"allowed": "a whole number from 4 to 256", "source": "paper"},
        ),
    ] = 30
    guests: Annotated[
        str,
        Meta(
            description="How long a link stays open that gossip has no use for, such as the one "
            "to a newcomer that has meanwhile been handed on. Links that `connect` opened stay.",
            extra={"allowed": "a duration from 1s to 10m", "source": "guess"},
        ),
    ] = "30s"


class InviteSection(Section, frozen=True, kw_only=True):
    """What `overlay invite` puts into a link unless told otherwise."""

    expires: Annotated[
        str,
        Meta(
            description="How long an invite is good for: seconds, or a number with s, m, h or d.",
            extra={"allowed": "a duration such as 90s, 30m, 12h or 7d, at most 365d"},
        ),
    ] = "7d"
    members: Annotated[
        int,
        Meta(
            ge=1,
            le=4,
            description="How many members an invite names. Each is one more that may be asleep "
            "when the link is used, and makes the link longer.",
            extra={"allowed": "a whole number from 1 to 4", "source": "guess"},
        ),
    ] = 4


class LogSection(Section, frozen=True, kw_only=True):
    """What the log says, and how."""

    level: Annotated[
        str,
        Meta(
            pattern="^(debug|info|warning|error)$",
            description="The least important event that is still logged.",
            extra={"allowed": "debug, info, warning or error", "source": "guess"},
        ),
    ] = "info"
    format: Annotated[
        str,
        Meta(
            pattern="^(text|json)$",
            description="`text` for people, `json` for programs: one object a line.",
            extra={"allowed": "text or json", "source": "guess"},
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


class Config(Section, frozen=True, kw_only=True):
    """Everything that a node can be told."""

    name: Annotated[
        str,
        Meta(
            max_length=64,
            description="What other members see beside this node's peer id; commands accept it in "
            "place of the id. Empty: this machine's host name.",
            extra={"allowed": "a text of at most 64 characters", "source": "guess"},
        ),
    ] = ""
    listen: Annotated[
        str,
        Meta(
            description="The UDP address of this node. `*` is every address of both families; "
            "port 0 is a random one, chosen at the first start and kept.",
            extra={"allowed": '"IP:PORT", "[IPv6]:PORT" or "*:PORT"', "source": "guess"},
        ),
    ] = "*:0"
    advertise: Annotated[
        list[str],
        Meta(
            max_length=8,
            description="Addresses at which this node can be reached from outside, when it cannot "
            "know them itself (a port forwarded by hand). Invites name them.",
            extra={"allowed": 'at most 8 of "IP:PORT", with a comma between', "source": "guess"},
        ),
    ] = []
    network: NetworkSection = NetworkSection()
    links: LinksSection = LinksSection()
    invite: InviteSection = InviteSection()
    log: LogSection = LogSection()


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table: all that the reference and an error say about a key."""

    name: str
    type: Any
    default: Any
    allowed: str
    about: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT + self.name.replace(".", "_").upper()


def keys() -> dict[str, Key]:
    """Every key by its dotted name, in the order of the file."""
    return {key.name: key for key in _keys_of(Config, "")}


def _keys_of(section: type[Section], prefix: str) -> Iterator[Key]:
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield from _keys_of(field.type, f"{prefix}{field.name}.")
            continue
        assert get_origin(field.type) is Annotated, f"{prefix}{field.name} is not documented"
        meta = get_args(field.type)[1]
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        name = f"{prefix}{field.name}"
        yield Key(name, field.type, default, meta.extra["allowed"], meta.description)


@dataclass(frozen=True, slots=True)
class Setting:
    """A value on its way into the configuration, and where it stood."""

    where: str
    key: str
    value: Any
    is_text: bool
    """Whether it was written as text (environment, command line), so that "false" is a bool."""


def load(
    path: Path | None,
    environ: Mapping[str, str],
    assignments: Iterable[str] = (),
    flags: Mapping[str, tuple[str, str]] | None = None,
) -> Config:
    """The configuration from all its sources; ConfigError says in one line what is wrong.

    `assignments` are the ``--set`` options; `flags` maps a key to (option, text).
    """
    settings = [
        *(_from_file(path) if path else ()),
        *_from_environment(environ),
        *_from_assignments(assignments),
        *(
            Setting(option, key, text, is_text=True)
            for key, (option, text) in (flags or {}).items()
        ),
    ]
    return _configured(settings)


def of_settings(values: Mapping[str, Any]) -> Config:
    """The configuration of a program: a value for each key named, the defaults for the rest."""
    return _configured(
        Setting("settings", key, value, is_text=isinstance(value, str))
        for key, value in values.items()
    )


def _configured(settings: Iterable[Setting]) -> Config:
    table = keys()
    tree: dict[str, Any] = {}
    for setting in settings:
        section, _, leaf = setting.key.rpartition(".")
        branch = tree.setdefault(section, {}) if section else tree
        branch[leaf] = _convert(setting, table)
    config = msgspec.convert(tree, Config)
    if config.links.active > config.links.max:
        raise ConfigError(
            f"links.active: the view of {config.links.active} has no room in links.max = "
            f"{config.links.max}: lower the one or raise the other"
        )
    return config


def _from_file(path: Path) -> Iterator[Setting]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a TOML file (not UTF-8)") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    yield from _flatten(str(path), content, "")


def _flatten(where: str, table: Mapping[str, Any], prefix: str) -> Iterator[Setting]:
    sections = {name.split(".")[0] for name in keys() if "." in name}
    for name, value in table.items():
        if not prefix and name in sections and not isinstance(value, dict):
            raise ConfigError(f"{where}: {name}: is a table: write [{name}] and its keys below")
        if isinstance(value, dict) and not prefix and name in sections:
            yield from _flatten(where, value, f"{name}.")
        else:
            yield Setting(where, prefix + name, value, is_text=False)


def _from_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    variables = {key.variable: key.name for key in keys().values()}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(ENVIRONMENT) or variable in RESERVED:
            continue
        if variable not in variables:
            raise ConfigError(
                f"{variable}: no such variable{_nearest(variable, variables)}: unset it"
            )
        yield Setting(variable, variables[variable], value, is_text=True)


def _from_assignments(assignments: Iterable[str]) -> Iterator[Setting]:
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: write it as KEY=VALUE")
        yield Setting("--set", key.strip(), value.strip(), is_text=True)


def _convert(setting: Setting, table: Mapping[str, Key]) -> Any:
    key = table.get(setting.key)
    if key is None:
        raise ConfigError(
            f"{setting.where}: {setting.key}: no such key{_nearest(setting.key, table)}"
        )
    value = setting.value
    if setting.is_text and key.name == "advertise":
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        value = msgspec.convert(value, key.type, strict=not setting.is_text)
        for check in CHECKS.get(key.name, ()):
            check(value)
    except (msgspec.ValidationError, ValueError):
        shown = setting.value if setting.is_text else msgspec.json.encode(setting.value).decode()
        raise ConfigError(
            f"{setting.where}: {key.name}: expected {key.allowed}, not {shown}"
        ) from None
    return value


def _nearest(word: str, words: Iterable[str]) -> str:
    """A hint at what was meant, or at where to look."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else f" (there are {', '.join(words)})"


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


def parse_address(text: str, *, wildcard: bool = False) -> Address:
    """The address in ``IP:PORT`` or ``[IPv6]:PORT``; ValueError when it is none."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ValueError(text)
    if wildcard and host == WILDCARD:
        return Address(WILDCARD, int(port))
    if host.startswith("[") and host.endswith("]"):
        return Address(str(ipaddress.IPv6Address(host[1:-1])), int(port))
    return Address(str(ipaddress.IPv4Address(host)), int(port))


def listen_address(config: Config) -> Address:
    """Where the node is to listen; host ``*`` and port 0 leave the choice to the node."""
    return parse_address(config.listen, wildcard=True)


def advertised_addresses(config: Config) -> tuple[Address, ...]:
    """What the user says is reachable from outside."""
    return tuple(parse_address(text) for text in config.advertise)


def _check_listen(text: str) -> None:
    parse_address(text, wildcard=True)


def _check_advertise(texts: list[str]) -> None:
    if any(parse_address(text).port == 0 for text in texts):
        raise ValueError(texts)


def _check_guests(text: str) -> None:
    if not 1.0 <= parse_duration(text) <= 600.0:
        raise ValueError(text)


def _check_printable(text: str) -> None:
    if not text.isprintable():
        raise ValueError(text)


CHECKS: Mapping[str, tuple[Callable[[Any], object], ...]] = {
    "name": (_check_printable,),
    "network.name": (_check_printable,),
    "listen": (_check_listen,),
    "advertise": (_check_advertise,),
    "invite.expires": (parse_duration,),
    "links.guests": (_check_guests,),
}
"""What a type cannot say, by key; each raises ValueError."""
