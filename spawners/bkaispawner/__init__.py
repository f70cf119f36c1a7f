"""Spawners that start a Hub server only with a lease, and give the lease back when it has ended.

This file exports nothing: name the module you mean (`bkaispawner.process`, `bkaispawner.leased`).
"""
