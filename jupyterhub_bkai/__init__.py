"""Slices of GPUs, image versions and a fair queue for JupyterHub.

This file only exports the version: importing the package must stay free, on a laptop as in a session.
"""

from jupyterhub_bkai._version import __version__

__all__ = ["__version__"]
