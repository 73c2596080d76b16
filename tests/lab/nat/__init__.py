"""The NAT laboratory; it stands alone so that `python -m tests.lab.nat` starts quickly.

`laboratory.py` builds the homes, `kinds.py` says which there are. By hand: docs/nat-laboratory.md.
"""
