"""What stands before nodes: firewalls, NATs of every kind (RFC 4787), the routers behind them."""
