"""`python -m jupyterhub_bkai.supervise`: `bkai up` where the command line is not installed (a unit file)."""

import argparse
import sys
from pathlib import Path

from jupyterhub_bkai.datadir import default_folder
from jupyterhub_bkai.supervise import up

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m jupyterhub_bkai.supervise", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"data folder ({default_folder().root})")
    parser.add_argument(
        "--port", type=int, default=8000, help="where people reach it (8000; 0: any free one)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (127.0.0.1)")
    parser.add_argument(
        "--fake", metavar="SAMPLE", help="pretend the devices of a shipped sample or TOML file"
    )
    given = parser.parse_args()
    sys.exit(up(given.data, port=given.port, host=given.host, fake=given.fake))
