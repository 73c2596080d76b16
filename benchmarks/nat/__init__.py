"""`make bench-nat`: which pairs of homes connect, how, and how soon; beside what stock aiortc does.

``python -m benchmarks.nat`` runs it. It stands alone because `stock.py` is a process of its own.
"""
