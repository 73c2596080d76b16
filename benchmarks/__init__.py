"""What overlay costs beside its rival, stock aiortc: ``python -m benchmarks``, or ``make bench``.

Every peer runs in its own process and every figure is a median over several runs, ours and the
rival's in turn. Nothing is imported here: the rival must not find trio-asyncio in its process.
"""
