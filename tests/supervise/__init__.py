"""Tests of the supervisor, the hub configuration and the data folder."""
