"""Figures people can repeat: `python -m benchmarks NAME` prints JSON on its last line; without a name, all run.

A benchmark compares with a peer in the same run, turn about, and tells medians: machines are noisy.
"""
