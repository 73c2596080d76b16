"""An unmodified aiortc peer in a process of its own, led by JSON lines on stdin and stdout.

    {"do": "offer"}                      -> {"sdp": ...}   then {"do": "accept", "sdp": ...}
    {"do": "answer", "sdp": ...}         -> {"sdp": ...}
    {"do": "close"}
    when its channel opens               -> {"open": true}
Every message is echoed. A channel is negotiated with id 0, or opened in band ("in_band": true). The
addresses of STUN servers may follow as arguments.
"""

import asyncio
import json
import sys
from typing import Any

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def use(channel: RTCDataChannel) -> None:
    channel.on("message", channel.send)
    if channel.readyState == "open":
        say(open=True)
    else:
        channel.on("open", lambda: say(open=True))


async def obey(connection: RTCPeerConnection, order: dict[str, Any]) -> None:
    if order["do"] == "offer":
        options: dict[str, Any] = {} if order.get("in_band") else {"negotiated": True, "id": 0}
        use(connection.createDataChannel("overlay", **options))
        await connection.setLocalDescription(await connection.createOffer())
        say(sdp=connection.localDescription.sdp)
    elif order["do"] == "answer":
        await connection.setRemoteDescription(RTCSessionDescription(order["sdp"], "offer"))
        use(connection.createDataChannel("overlay", negotiated=True, id=0))
        await connection.setLocalDescription(await connection.createAnswer())
        say(sdp=connection.localDescription.sdp)
    elif order["do"] == "accept":
        await connection.setRemoteDescription(RTCSessionDescription(order["sdp"], "answer"))
    elif order["do"] == "close":
        await connection.close()


async def main() -> None:
    servers = [RTCIceServer(f"stun:{address}") for address in sys.argv[1:]]
    connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
    orders = asyncio.get_running_loop()
    while line := await orders.run_in_executor(None, sys.stdin.readline):
        await obey(connection, json.loads(line))
    await connection.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
