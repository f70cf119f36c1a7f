"""What the supervisor says: on the terminal for people, with the time in `log/up.log` for later.

Owns these two outputs. A terminal that has gone away is not an error: the supervisor goes on without it.
"""

import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path


class Console:
    """Says sentences. What is `private` is shown and never written to a file."""

    def __init__(self) -> None:
        self._file: Path | None = None

    def keep(self, file: Path) -> None:
        """From now on also write to this file."""
        self._file = file

    def say(self, sentence: str, *, private: bool = False) -> None:
        """One sentence, on a line of its own."""
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.write(sentence + "\n")
            sys.stdout.flush()
        if self._file is not None and not private:
            with contextlib.suppress(OSError):
                self._append(self._file, sentence)

    @staticmethod
    def _append(file: Path, sentence: str) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a") as stream:
            stream.write(f"{stamp} {sentence}\n")
