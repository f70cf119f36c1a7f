"""What has happened to one start, told to everybody who watches it.

Owns the Hub's progress messages and their percentages. The Hub asks each viewer's page for its own stream, so
the story is kept and replayed; of a wait with a thousand positions only the present one is.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from jupyterhub_bkai.client.trusted import Event, Preparing, Pulling, Queued

#: where each chapter begins on the Hub's progress bar
ASKED, WAITING, PREPARING, PULLING, LAUNCHED, ANSWERING = 2, 5, 20, 25, 75, 95


class Story:
    """The messages of one start, oldest first; a chapter said again replaces what it said before."""

    def __init__(self) -> None:
        self._told: list[tuple[int, str, dict[str, Any]]] = []
        self._count = 0
        self._news = asyncio.Event()

    def say(self, chapter: str, percent: int, message: str, **facts: Any) -> None:
        """Tell all viewers, now and later ones; the page shows `chapter` and `facts` in its own way."""
        entry = {"progress": percent, "message": message, "chapter": chapter, **facts}
        if self._told and self._told[-1][1] == chapter:
            if self._told[-1][2] == entry:
                return
            self._told.pop()
        self._count += 1
        self._told.append((self._count, chapter, entry))
        self._news.set()
        self._news = asyncio.Event()

    def relate(self, event: Event) -> None:
        """Tell what the service says about the request."""
        match event:
            case Queued(message=message, position=position, why=why, asked=asked):
                self.say("waiting", WAITING, message, position=position, why=why, asked=dict(asked))
            case Preparing(message=message, asked=asked):
                self.say("preparing", PREPARING, message, asked=dict(asked))
            case Pulling(percent=percent, message=message):
                done = (LAUNCHED - PULLING) * min(max(percent or 0, 0), 100) // 100
                self.say("pulling", PULLING + done, message)

    async def view(self) -> AsyncGenerator[dict[str, Any], None]:
        """Everything so far, then whatever comes; ends only when whoever reads it stops."""
        seen = 0
        while True:
            news = self._news
            for number, _, entry in list(self._told):
                if number > seen:
                    seen = number
                    yield dict(entry)
            await news.wait()
