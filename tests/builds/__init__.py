"""Test builds of the node: each runs the ordinary one, in its own process, with one thing wrong.

``python -m tests.builds.NAME up …`` stands where ``overlay up …`` would.
"""

import runpy


def run_overlay() -> None:
    """Hand over to the ordinary command line; never returns."""
    runpy.run_module("overlay", run_name="__main__", alter_sys=True)
