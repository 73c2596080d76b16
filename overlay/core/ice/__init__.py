"""ICE (RFC 8445) and STUN (RFC 8489): full agents, and the lite one of a direct dial."""
