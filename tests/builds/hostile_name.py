"""A node to which every name is one: its record holds whatever `--name` says.

It stands alone because the rule is off for a whole process.
"""

from overlay import names
from tests.builds import run_overlay

if __name__ == "__main__":
    names.complaint = lambda name: ""
    run_overlay()
