"""Image versions: what an administrator defines, and the environments made from it."""
