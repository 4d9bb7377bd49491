"""What a live link loses, and what that costs: links simulated in virtual time."""
