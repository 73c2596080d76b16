"""Each kind is what its name says: by construction, by our probe, and by coturn's."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.lab.nat.coturn import NEEDS, Coturn, Discovery
from tests.lab.nat.kinds import KINDS, Kind
from tests.lab.nat.laboratory import Laboratory
from tests.lab.nat.stun import Behaviour, Responder, classify

pytestmark = [pytest.mark.netns, pytest.mark.needs("nft", "unshare", *NEEDS)]
NOTHING = Behaviour(None, None, None, None)
WITH_A_TABLE = [kind for kind in KINDS.values() if kind.is_nat and kind.udp]
IN_USER_SPACE = [kind for kind in WITH_A_TABLE if not kind.accepts and not kind.carriers]


def constructed(kind: Kind, *, hairpin: bool = False) -> Behaviour:
    """What a probe behind it should find; without a NAT our own address is our own."""
    if not kind.udp:
        return NOTHING
    return Behaviour(kind.mapping, kind.filtering, kind.ports, hairpin or not kind.is_nat)


@pytest.fixture(scope="module")
def responder(laboratory: Laboratory) -> Iterator[Responder]:
    with Responder(laboratory.public_host(2)) as responder:
        yield responder


def test_our_probe_and_coturns_find_what_was_built(
    laboratory: Laboratory, responder: Responder
) -> None:
    """Every kind without hairpinning, and those that can with it.

    In one test, since each of coturn's takes six seconds of waiting: all ask at once, and ours
    meanwhile.
    """
    asked = [(kind, False) for kind in KINDS.values()] + [(kind, True) for kind in WITH_A_TABLE]
    with Coturn(laboratory.public_host(2)) as coturn:
        hosts = {
            (kind.name, hairpin): laboratory.standing(kind.name, hairpin=hairpin).host
            for kind, hairpin in asked
        }
        discoveries = {key: Discovery(host, coturn.address) for key, host in hosts.items()}
        ours = {key: classify(host, responder.hosts) for key, host in hosts.items()}
        theirs = {key: discovery.result() for key, discovery in discoveries.items()}
    assert ours == {
        (kind.name, hairpin): constructed(kind, hairpin=hairpin) for kind, hairpin in asked
    }
    # Coturn's two sockets do not both send first, so the NAT behind a carrier's lets nothing in.
    agreed = {key: found.verdict for key, found in ours.items()}
    agreed["carrier", True] = replace(agreed["carrier", True], hairpin=False)
    assert theirs == agreed


@pytest.mark.parametrize("name", [kind.name for kind in IN_USER_SPACE])
def test_the_nat_in_user_space_is_of_the_same_kinds(
    laboratory: Laboratory, responder: Responder, name: str
) -> None:
    home = laboratory.standing(name, userspace=True)
    assert classify(home.host, responder.hosts) == constructed(KINDS[name])
