"""What people read of where a node listens."""

from overlay.cli.tables import listening


def test_who_can_reach_a_node_is_said_beside_its_addresses() -> None:
    lan = ["192.168.1.5:7000", "[fe80::1]:7000"]
    assert listening(lan) == ", ".join(lan)
    assert "only this machine" in listening(["[::1]:7000", "127.0.0.1:7000"])
    assert "same cable or switch" in listening(["[fe80::1]:7000"])
    assert "no network interface has an address" in listening([])
