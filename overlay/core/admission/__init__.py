"""Who may come in: invites made and redeemed."""
