"""Sockets, DTLS, SCTP and channels; the only importers of aiortc and trio_asyncio."""
