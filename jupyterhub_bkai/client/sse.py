"""Server-sent events: lines in, events out. Pure."""

from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its kind and its data."""

    kind: str
    data: str


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """The events in a text/event-stream; comments (heartbeats) and unknown fields are passed over."""
    kind, data = "message", list[str]()
    async for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(kind, "\n".join(data))
            kind, data = "message", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
