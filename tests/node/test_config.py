"""Settings: three sources, the last one wins, and whatever is wrong is one line."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docs.reference import as_markdown, as_toml
from overlay.core.types import Address
from overlay.errors import ConfigError
from overlay.node.config import (
    Config,
    advertised_addresses,
    keys,
    listen_address,
    load,
    parse_advertised,
    parse_duration,
    parse_listen,
    users_own,
    variable,
)

ROOT = Path(__file__).resolve().parents[2]


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return file


def refusal(path: Path | None = None, **sources: object) -> str:
    """The one line with which `load` refuses."""
    with pytest.raises(ConfigError) as caught:
        load(path, **{"environ": {}, **sources})  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_without_any_source_the_defaults_hold() -> None:
    assert load(None, {}) == Config()


def test_later_sources_win(tmp_path: Path) -> None:
    file = written(tmp_path, 'name = "file"\n[links]\nmax = 5\ndirect = false\n')
    environ = {"OVERLAY_LINKS_MAX": "6", "OVERLAY_NAME": "environment", "HOME": "x"}
    assert load(file, {}).links.max == 5
    assert load(file, environ).links.max == 6
    assert load(file, environ, ["links.max=7"]).links.max == 7
    chosen = load(file, environ, ["name=set"], {"name": ("--name", "flag")})
    assert (chosen.name, chosen.links.max, chosen.links.direct) == ("flag", 6, False)


def test_the_users_own_file_is_one_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert users_own() is None
    file = tmp_path / "overlay" / "config.toml"
    file.parent.mkdir()
    file.symlink_to(tmp_path / "away")
    assert users_own() == file, "one that leads nowhere is no silence"
    assert str(file) in refusal(file)
    (tmp_path / "away").write_text("max = 3\n")
    assert str(file) in refusal(users_own())


@pytest.mark.parametrize(
    ("text", "value"), [("false", False), ("true", True), ("0", False), ("1", True)]
)
def test_text_stands_for_a_truth_value(text: str, value: bool) -> None:
    assert load(None, {"OVERLAY_LINKS_AUTO": text}).links.auto is value
    assert load(None, {}, [f"links.auto={text}"]).links.auto is value


def test_advertise_takes_a_list_or_text_with_commas(tmp_path: Path) -> None:
    file = written(tmp_path, 'advertise = ["192.0.2.1:7", "[2001:db8::1]:8"]\n')
    expected = (Address("192.0.2.1", 7), Address("2001:db8::1", 8))
    assert advertised_addresses(load(file, {})) == expected
    environ = {"OVERLAY_ADVERTISE": "192.0.2.1:7, [2001:db8::1]:8"}
    assert advertised_addresses(load(None, environ)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0:4000", "every address"),
        ("[::]:4000", "every address"),
        ("[::ffff:0.0.0.0]:4000", "every address"),
        ("[fe80::1%eth0]:4000", "zone"),
        ("203.0.113.7:0", "port 0"),
        ("224.0.0.1:4000", "group"),
        ("[ff02::1]:4000", "group"),
        ("255.255.255.255:4000", "no address that a host can have"),
        ("240.0.0.1:4000", "no address that a host can have"),
        ("0.1.2.3:4000", "no address that a host can have"),
        ("[::203.0.113.7]:4000", "no address that a host can have"),
        ("127.0.0.1:4000", "this machine"),
        ("[::1]:4000", "this machine"),
    ],
)
def test_what_reaches_nobody_is_not_advertised_wherever_it_stood(
    tmp_path: Path, text: str, why: str
) -> None:
    for line in (
        refusal(written(tmp_path, f'advertise = ["192.0.2.1:7", "{text}"]\n')),
        refusal(environ={"OVERLAY_ADVERTISE": text}),
        refusal(assignments=[f"advertise={text}"]),
        refusal(flags={"advertise": ("--advertise", f"192.0.2.1:7,{text}")}),
    ):
        assert "advertise" in line
        assert text in line
        assert why in line


def test_a_hidden_node_advertises_nothing_and_needs_circuits() -> None:
    for contradiction in ("advertise=192.0.2.1:7", "links.circuits=false"):
        line = refusal(assignments=["links.relay_only=true", contradiction])
        assert "links.relay_only" in line
    assert load(None, {}, ["links.relay_only=true"]).links.relay_only


def test_a_low_ttl_is_from_3_to_6_or_off() -> None:
    for ttl in (0, 3, 4, 5, 6):
        assert load(None, {}, [f"nat.low_ttl={ttl}"]).nat.low_ttl == ttl
    for ttl in (-1, 1, 2, 7, 64):
        line = refusal(assignments=[f"nat.low_ttl={ttl}"])
        assert "nat.low_ttl" in line
        assert "0, or 3 to 6" in line


def test_loopback_is_advertised_by_who_listens_there() -> None:
    environ = {"OVERLAY_ADVERTISE": "127.0.0.1:9", "OVERLAY_LISTEN": "127.0.0.1:0"}
    assert advertised_addresses(load(None, environ)) == (Address("127.0.0.1", 9),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[fe80::1%eth0]:0", "zone"),
        ("[fe80::1]:7", "*:7"),
        ("239.1.2.3:0", "group"),
        ("[ff02::1]:0", "group"),
        ("255.255.255.255:0", "no address that a host can have"),
    ],
)
def test_what_nobody_can_listen_on_is_refused_before_it_is_tried(text: str, why: str) -> None:
    line = refusal(flags={"listen": ("--listen", text)})
    assert text in line
    assert why in line


def test_an_ipv4_address_in_the_clothes_of_ipv6_is_ipv4() -> None:
    """RFC 4291 §2.5.5.2: what is sent there leaves as IPv6, or not at all."""
    environ = {"OVERLAY_ADVERTISE": "[::ffff:203.0.113.7]:4000", "OVERLAY_LISTEN": "[::ffff:0:0]:9"}
    config = load(None, environ)
    assert advertised_addresses(config) == (Address("203.0.113.7", 4000),)
    assert listen_address(config) == Address("0.0.0.0", 9)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("*:0", Address("*", 0)),
        ("127.0.0.1:7000", Address("127.0.0.1", 7000)),
        ("[::1]:7000", Address("::1", 7000)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
    ],
)
def test_listen_is_an_address(text: str, address: Address) -> None:
    assert listen_address(load(None, {}, [f"listen={text}"])) == address


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    line = refusal(written(tmp_path, "[links]\natuo = false\n"))
    assert "node.toml" in line
    assert "links.atuo" in line
    assert "did you mean links.auto?" in line
    assert "--set" in refusal(assignments=["links.atuo=1"])


KUBERNETES = {
    "OVERLAY_PORT": "tcp://10.0.0.1:80",
    "OVERLAY_PORT_80_TCP": "tcp://10.0.0.1:80",
    "OVERLAY_PORT_80_TCP_ADDR": "10.0.0.1",
    "OVERLAY_PORT_80_TCP_PORT": "80",
    "OVERLAY_PORT_80_TCP_PROTO": "tcp",
    "OVERLAY_RELAY_SERVICE_HOST": "10.0.0.2",
    "OVERLAY_SERVICE_HOST": "10.0.0.1",
    "OVERLAY_SERVICE_PORT": "80",
    "OVERLAY_SERVICE_PORT_HTTP": "80",
}


def test_an_unknown_variable_is_one_line_and_no_refusal() -> None:
    said: list[str] = []
    environ = {**KUBERNETES, "OVERLAY_LINKS_ATUO": "1", "OVERLAY_ZZZZ": "\x1b", "OVERLAYS": "x"}
    assert load(None, {**environ, "OVERLAY_NAME": "n"}, warn=said.append) == Config(name="n")
    (line,) = said
    assert "\n" not in line
    assert "OVERLAY_LINKS_ATUO (did you mean OVERLAY_LINKS_AUTO?), OVERLAY_ZZZZ, " in line
    assert f"{', '.join(sorted(KUBERNETES))} (as Kubernetes" in line
    assert line.count("did you mean") == 1
    assert "OVERLAYS" not in line
    said.clear()
    assert load(None, {"OVERLAY_NAME": "n", "OVERLAY_CONFIG": "c"}, warn=said.append).name == "n"
    assert said == []
    line = refusal(environ={"OVERLAY_LINKS_AUTO": "perhaps", **KUBERNETES})
    assert "OVERLAY_LINKS_AUTO" in line
    assert "true or false" in line


def test_a_key_with_dots_in_quotes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert "links.max: is written without quotes" in refusal(written(tmp_path, '"links.max" = 5\n'))


def test_a_key_like_no_other_is_refused_with_the_whole_list() -> None:
    line = refusal(assignments=["zzzz=1"])
    assert all(name in line for name in keys())


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("links.max=1000", "a whole number from 2 to 128, not 1000"),
        ("links.max=many", "a whole number from 2 to 128, not many"),
        ("links.active=1", "a whole number from 2 to 32, not 1"),
        ("links.passive=257", "a whole number from 4 to 256"),
        ("links.guests=0.5", "from 1s to 10m"),
        ("links.guests=11m", "from 1s to 10m"),
        ("links.guests=long", "from 1s to 10m"),
        ("links.direct=perhaps", "true or false"),
        ("log.level=loud", "debug, info, warning or error"),
        ("log.format=xml", "text or json"),
        ("invite.expires=soon", "7d"),
        ("invite.expires=0", "7d"),
        ("invite.expires=366d", "365d"),
        ("invite.members=5", "1 to 4"),
        ("listen=localhost:7000", "IP:PORT"),
        ("listen=127.0.0.1", "IP:PORT"),
        ("listen=127.0.0.1:70000", "IP:PORT"),
        ("listen=::1:7000", "IP:PORT"),
        ("advertise=192.0.2.1", "IP:PORT"),
        ("advertise=*:7", "IP:PORT"),
        ("name=" + 65 * "x", "name: has 65 characters, and 64 are the most"),
        ("name=a\x1b[2Jb", "name: has U+001B ESCAPE, a control character: leave it out"),
        ("network.name=", "network.name: is empty"),
        ("links.max=\x1b[2J\u202e", "not �[2J�"),
        ("no\u202esuch=1", "no�such: no such key"),
        ("nothing", "KEY=VALUE"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(assignment: str, says: str) -> None:
    assert says in refusal(assignments=[assignment])


def test_a_view_that_has_no_room_among_the_links_is_refused() -> None:
    line = refusal(assignments=["links.active=9", "links.max=8"])
    assert "9" in line
    assert "links.max = 8" in line
    assert "links.active" in refusal(assignments=["links.max=4"]), "the default has no room either"
    assert load(None, {}, ["links.active=8", "links.max=8"]).links.active == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[links]\nmax = "5"\n', 'links.max: expected a whole number from 2 to 128, not "5"'),
        ("[links]\nmax = true\n", "links.max"),
        ("[links]\ndirect = 0\n", "links.direct: expected true or false, not 0"),
        ("links = 3\n", "write [links]"),
        ("[name]\nx = 1\n", "name: expected"),
        ('advertise = "192.0.2.1:7"\n', "advertise"),
        ("[links\n", "not valid TOML"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong_in_it(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    line = refusal(file)
    assert line.startswith(str(file))
    assert says in line


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.toml")
    assert "directory" in refusal(tmp_path)


def test_variables_of_the_command_line_are_no_keys() -> None:
    assert load(None, {"OVERLAY_DATA_DIR": "x", "OVERLAY_CONFIG": "y"}) == Config()


def test_every_key_is_documented_and_its_default_is_allowed() -> None:
    table = keys()
    assert {"name", "listen", "advertise", "network.name", "links.direct", "links.auto",
            "links.max", "links.full_mesh", "links.active", "links.passive", "links.guests",
            "invite.expires", "log.level", "log.format"} <= set(table)  # fmt: skip
    for name, key in table.items():
        assert len(key.about) > 20, name
        assert key.allowed, name
        text = ",".join(key.default) if isinstance(key.default, list) else str(key.default)
        assert load(None, {variable(name): text}) == Config(), name


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.toml")), ids=lambda f: f.stem)
def test_every_shipped_configuration_loads_and_is_commented(file: Path) -> None:
    load(file, {})
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert len(comments) >= 3


def test_the_reference_configuration_has_every_key_at_its_default() -> None:
    file = ROOT / "configs" / "reference.toml"
    assert load(file, {}) == Config()
    content = tomllib.loads(file.read_text())
    present = {
        f"{name}.{inner}" if isinstance(value, dict) else name
        for name, value in content.items()
        for inner in (value if isinstance(value, dict) else [""])
    }
    assert present == set(keys())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("12h", 43_200), ("7d", 604_800), (" 7 d ", 604_800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text(max_size=30))
def test_no_text_makes_a_duration_or_address_raise_anything_else(text: str) -> None:
    for parse in (parse_duration, parse_listen, parse_advertised):
        try:
            parse(text)
        except ValueError:
            pass


def test_the_reference_configuration_is_written_from_the_table() -> None:
    assert (ROOT / "configs" / "reference.toml").read_text() == as_toml()


def test_the_reference_table_has_a_row_for_every_key() -> None:
    rows = as_markdown().splitlines()
    assert len(rows) == len(keys()) + 2
    assert all(row.count(" | ") == 4 for row in rows[2:])
