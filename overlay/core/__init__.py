"""The mesh's brain, sans-IO: no clock, socket, task, log or global randomness in here."""
