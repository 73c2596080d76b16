"""Sockets, and the links over them: the transport of a real node."""
