"""DTLS 1.2 on memory BIOs (RFC 6347)."""
