"""Leases: who holds which slice, since when, why, until when."""
