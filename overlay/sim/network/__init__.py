"""What lies between the nodes of a world: links or datagrams, latency, loss, NAT boxes."""
