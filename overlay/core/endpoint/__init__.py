"""The node's one UDP port as a state machine: who a datagram is for."""
