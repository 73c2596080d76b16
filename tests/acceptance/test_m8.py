"""One idea: M8 as a newcomer meets it: the first hour, any medium, a first file.

By the command line and JSON alone; what is long by nature is in `make soak`.
"""

import pytest

pytestmark = [pytest.mark.slow]


# --- 1. signals -------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_1_signals() -> None:
    """An early signal ends the node by its number, a later one with a goodbye."""
    pytest.fail("not written yet")


# --- 2. no home -------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_2_no_home() -> None:
    """Without HOME and passwd entry, one line names --data-dir."""
    pytest.fail("not written yet")


# --- 3. environment ---------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_3_environment() -> None:
    """Unknown OVERLAY_ variables warn and never refuse."""
    pytest.fail("not written yet")


# --- 4. disks ---------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_4_disks() -> None:
    """Full and odd file systems: one line with path and cause; the identity stays."""
    pytest.fail("not written yet")


# --- 5. control -------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_5_control() -> None:
    """Idle control connections are bounded; a stopped node is reported in 3 s."""
    pytest.fail("not written yet")


# --- 6. waiting -------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_6_waiting() -> None:
    """Wait, the remembered name, another network's directory, --reset-network."""
    pytest.fail("not written yet")


# --- 7. api -----------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_7_api() -> None:
    """Wrong types and bounds are refused at the call, and the node lives."""
    pytest.fail("not written yet")


# --- 8. links ---------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_8_links() -> None:
    """Links survive chat, mail and shells, or the cause is named."""
    pytest.fail("not written yet")


# --- 9. names ---------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_9_names() -> None:
    """Unprintable names are refused with the character named."""
    pytest.fail("not written yet")


# --- 10. peers --------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_10_peers() -> None:
    """Peers at 80 columns: whole words, short ids, the dead marked."""
    pytest.fail("not written yet")


# --- 11. start screen -------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_11_start_screen() -> None:
    """The start screen at 80 x 24, and no secret in pipes."""
    pytest.fail("not written yet")


# --- 12. silence ------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_12_silence() -> None:
    """Silence is filled after a second."""
    pytest.fail("not written yet")


# --- 13. commands -----------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_13_commands() -> None:
    """Ping -c, names, chat's end, -V, completion, default configuration."""
    pytest.fail("not written yet")


# --- 14. docs ---------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_14_docs() -> None:
    """Docs offer what exists, and every measure and sweep word is documented."""
    pytest.fail("not written yet")


# --- 15. first contact ------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_15_first_contact() -> None:
    """Offer, answer, accept: two strangers by any medium."""
    pytest.fail("not written yet")


# --- 16. files --------------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_16_files() -> None:
    """Send and receive: verified, resumed, safe."""
    pytest.fail("not written yet")


# --- 17. captures -----------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_17_captures() -> None:
    """Every capture is made at 80 x 24 by a script."""
    pytest.fail("not written yet")


# --- 18. first hour ---------------------------------------------------------------------------


@pytest.mark.xfail(strict=True, reason="not built yet")
def test_18_first_hour() -> None:
    """Version and help are quick; two commands to the first link on a second machine."""
    pytest.fail("not written yet")
