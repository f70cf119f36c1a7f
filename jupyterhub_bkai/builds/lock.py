"""The lock of an environment as text: every package with its exact version and the hashes of its files.

Pure. Making one is the installer's work; here is what we read from it and how it is kept.
"""

import re

# What every environment is founded on is decided by the hub, never by a lock from an earlier time.
FOUNDED = ("jupyterhub", "jupyterhub-bkai", "jupyterlab")
_ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?(?: @ |==)(?:[^\n]*\\\n)*[^\n]*\n?", re.MULTILINE
)
_OWN = re.compile(r"^jupyterhub-bkai(?:\[[^]]*\])? @ \S+", re.MULTILINE)


def count(lock: str) -> int:
    """How many packages it names."""
    return sum(1 for _ in _ENTRY.finditer(lock))


def kept(lock: str, own_version: str) -> str:
    """As it is kept beside the environment: our own wheel by its version, not by a path of this machine."""
    return _OWN.sub(f"jupyterhub-bkai=={own_version}", lock)


def constraints(lock: str) -> str:
    """What a lock that comes with a definition decides: everything but the foundation."""
    return _ENTRY.sub(lambda entry: "" if entry["name"] in FOUNDED else entry[0], lock)
