"""Links between nodes: the hello, which of two survives, and the farewell."""
