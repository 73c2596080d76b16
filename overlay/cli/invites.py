"""`overlay invite`: make a link, or explain one without using it."""

import time
from pathlib import Path
from typing import Any

import click

from overlay.cli import tables
from overlay.cli.options import asks_node, json_option, print_json, read_link
from overlay.cli.waiting import Client
from overlay.errors import InviteError, UsageError
from overlay.names import plain


def duration(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Seconds of ``90``, ``90s``, ``30m``, ``12h``, ``7d``."""
    if value is None:
        return None
    from overlay.node.config import parse_duration

    try:
        return parse_duration(value)
    except ValueError:
        text = f"{value!r} is no duration such as 90s, 30m, 12h or 7d (at most 365d)"
        raise click.BadParameter(text) from None


@click.group(invoke_without_command=True)
@click.option("--expires", callback=duration, metavar="7d", help="How long the link is good for.")
@click.option(
    "--members", type=click.IntRange(1, 4), metavar="N", help="How many members it names."
)
@click.option("--qr", is_flag=True, help="Print a code to scan, too.")
@asks_node
@click.pass_context
def invite(
    context: click.Context,
    data_dir: Path,
    as_json: bool,
    expires: float | None,
    members: int | None,
    qr: bool,
) -> None:
    """Make an invite link.

    Anyone who has it can join until it expires, so keep it secret.
    """
    if context.invoked_subcommand is not None:
        return
    made = Client(data_dir).post("/invite", {"expires": expires, "members": members})
    if as_json:
        print_json(made)
        return
    print(made["link"])
    if qr:
        print(tables.qr_code(made["link"]), end="")
    click.echo(f"(a secret; good until {tables.moment(made['expires_at'])})", err=True)


@invite.command()
@click.argument("link", metavar="LINK|-")
@click.option("--sdp", is_flag=True, help="Print a session description that answers an offer.")
@click.option("--data-dir", hidden=True, expose_value=False, help="Taken, as by every command.")
@json_option
def show(link: str, as_json: bool, sdp: bool) -> None:
    """Explain LINK without using it; no node needs to run.

    With --sdp: the WebRTC answer of the first member that it names, written from the link alone,
    with fresh credentials each time. Any WebRTC peer that offers one data channel opens with it.
    """
    from overlay.core.wire import invite as invites

    body = read_invite(read_link(link), wall=0.0)  # an expired one is explained, too
    told = explanation(invites.explain(body, time.time()))
    if sdp:
        answer = fabricated_answer(body)
        print_json({"sdp": answer}) if as_json else print(answer, end="")
    elif as_json:
        print_json(told)
    else:
        print_explanation(told)


def read_invite(link: str, wall: float) -> Any:
    """The invite in a link; InviteError: unreadable, forged, or expired at `wall`."""
    from overlay.core.wire import invite as invites
    from overlay.identity import ephemeral

    keys = ephemeral()
    body = invites.decode(link, keys)
    invites.check(body, wall, keys)
    return body


def explanation(told: Any) -> dict[str, Any]:
    """What `invite show --json` prints: no seed, no token."""
    from overlay.identity import peer_id_text

    return {
        "network": told.network_name,
        "network_id": told.network.hex(),
        "invite_id": told.invite_id.hex(),
        "issuer": peer_id_text(told.issuer),
        "role": told.role,
        "uses": told.uses or None,
        "expires_at": told.expires_at,
        "expired": told.expired,
        "members": [
            {
                "peer_id": peer_id_text(member.peer) if member.peer else None,
                "fingerprint": member.fingerprint.hex(),
                "addresses": [
                    {"address": str(address), "proven": proven}
                    for address, proven in member.addresses
                ],
            }
            for member in told.members
        ],
    }


def print_explanation(told: dict[str, Any]) -> None:
    """The same for people."""
    print(f"network  {plain(told['network'])} ({told['network_id'][:16]}…)")
    print(f"issuer   {told['issuer']}")
    print(f"role     {plain(told['role'])}, {told['uses'] or 'any number of'} uses")
    word = "expired" if told["expired"] else "expires"
    print(f"{word}  {tables.moment(told['expires_at'])}")
    for member in told["members"]:
        certificate = f"(the node with the certificate {member['fingerprint'][:16]}…)"
        print(f"member   {member['peer_id'] or certificate}")
        for address in member["addresses"]:
            print(f"         {address['address']} ({'proven' if address['proven'] else 'claimed'})")


def fabricated_answer(body: Any) -> str:
    """The answer of the first member with an address, its credentials made from its dial token."""
    import secrets

    from overlay.core.types import Address
    from overlay.core.wire import dial_tokens as dial
    from overlay.core.wire import invite as invites
    from overlay.core.wire import sdp

    grant = invites.grant_of(body)
    if grant.expires_at <= time.time():
        raise InviteError("the invite link has expired: nobody would answer; ask for a new one")
    members = [member for member in body.members if member.addresses]
    if not members:
        raise UsageError("the invite link names no address: there is nothing to dial")
    member = members[0]
    claim = dial.Claim(
        dial.INVITE, grant.invite_id, grant.expires_at, secrets.token_bytes(dial.ATTEMPT_BYTES)
    )
    first, *more = (Address(entry.host, entry.port) for entry in member.addresses)
    return sdp.fabricated_answer(
        first,
        dial.listener_credentials(member.token, claim),
        member.fingerprint,
        more=tuple(more),
    )
