"""The command line: `bkai …`. One file per noun; nothing of it is imported before it is asked for.

Exit codes
    0     it worked; `bkai run` gives the program's own code instead
    1     refused, failed, or not logged in
    2     the command line itself is wrong
    3     the hub or the service cannot be reached
    130   Ctrl-C
"""

import sys


def main() -> None:
    """The `bkai` program."""
    from jupyterhub_bkai.cli.root import root

    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to fail
    sys.exit(root.main(prog_name="bkai"))
