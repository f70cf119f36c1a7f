"""Server-sent events: lines in, events out. Pure."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its kind and its data."""

    kind: str
    data: str


@dataclass(slots=True)
class Reader:
    """Puts the lines of a text/event-stream together; comments (heartbeats) and unknown fields are passed over."""

    _kind: str = "message"
    _data: list[str] = field(default_factory=list)

    def take(self, line: str) -> Event | None:
        """The event that this line completes, if it does."""
        if not line:
            event = Event(self._kind, "\n".join(self._data)) if self._data else None
            self._kind, self._data = "message", []
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        return None
