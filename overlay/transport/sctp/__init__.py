"""SCTP over DTLS (RFC 8261): what aiortc has, made synchronous and hard to harm."""
