"""The transport in memory: nodes of one process, without sockets."""
