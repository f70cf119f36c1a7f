"""Doors that prove whether anything of a lease is still alive, and end it: one module per way of running.

A slice is freed only behind such a proof. Nothing here decides when to ask.
"""
