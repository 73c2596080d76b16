"""A network of our own: a namespace with one address, so that nothing leaves and nobody disturbs.

Stock aiortc gathers no candidate on 127.0.0.1, so loopback alone will not do; both stacks get one
and the same address on a pair of virtual Ethernet ends. There is no ``::1``: it would be a second
address to dial, which only ours has.
"""

import os
import shutil
import subprocess
import sys

ADDRESS = "198.18.0.1"
"""From the range reserved for benchmarks (RFC 2544)."""
_INSIDE = "BENCHMARKS_NAMESPACE"
_BUILD = f"""
ip link set lo up &&
ip -6 address flush dev lo &&
ip link add bench0 type veth peer name bench1 &&
ip address add {ADDRESS}/24 dev bench0 &&
ip link set bench0 up && ip link set bench1 up &&
exec "$@"
"""


def inside() -> bool:
    """Whether this process runs in the benchmark's own network."""
    return _INSIDE in os.environ


def rerun(arguments: list[str]) -> int:
    """Run ``python -m benchmarks`` again inside a new network; return its exit status.

    Raises RuntimeError on a system without network namespaces.
    """
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if unshare is None or ip is None:
        raise RuntimeError("needs Linux with unshare (util-linux) and ip (iproute2)")
    flags = ["-n"] if os.geteuid() == 0 else ["-Urn"]
    command = [unshare, *flags, "--", "sh", "-c", _BUILD, "sh"]
    command += [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, check=False, env={**os.environ, _INSIDE: "1"}).returncode
