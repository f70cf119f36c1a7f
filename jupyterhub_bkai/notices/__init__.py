"""What people are told without looking: that a session ends soon or has ended, that it is their turn, and the like."""
