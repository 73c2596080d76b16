"""Requests through the mesh: the ring, look-ahead, acknowledgements, ways around."""
