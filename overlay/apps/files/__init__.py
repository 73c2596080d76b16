"""Files from one member to another: offered, agreed to, verified, resumed."""
