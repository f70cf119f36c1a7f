"""Our service with a second meter beside its own, written to the file that `SOAK_RECORD` names.

The second meter reads another clock (CLOCK_MONOTONIC) at the beginning of each transaction and notes, before the
transaction is written, which intervals it opens and closes. It shares nothing with the product's own arithmetic.
`SOAK_WAY` makes the service careless besides (`careless.WAYS`).
"""

import os
import sys
import time
from typing import Any

from jupyterhub_bkai import app
from jupyterhub_bkai.leasing import draft as drafts
from jupyterhub_bkai.store.database import Batch, Database
from tests.soak import careless


def record(path: str) -> None:
    """Adds the second meter."""
    began: dict[str, int] = {}
    out = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    draft, write = drafts.Draft.__init__, Database._write

    def begin(self: drafts.Draft, *args: Any) -> None:
        began["ns"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        draft(self, *args)

    def note(self: Database, batch: Batch) -> None:
        opened = [f"open {row['lease']} {began['ns']}\n" for row in batch.intervals]
        freed = [
            f"close {row['id']} {began['ns']}\n"
            for row in batch.changed_requests
            if row["state"] in ("released", "withdrawn", "failed")
        ]
        os.write(out, "".join([*opened, *freed]).encode())
        write(self, batch)

    drafts.Draft.__init__ = begin  # type: ignore[method-assign, assignment]
    Database._write = note  # type: ignore[method-assign]


if __name__ == "__main__":
    if way := os.environ.get("SOAK_WAY"):
        careless.WAYS[way]()
    record(os.environ["SOAK_RECORD"])
    sys.exit(app.main())
