"""The errors whose text people read.

    PublicError                 a sentence for the user, a stable reason, an HTTP status
    ├── InvalidOptions          400  something asked for is not well-formed; one sentence per field
    ├── PolicyDenied            403  well-formed, but the administrator's rules say no
    ├── NotAllowed              403  somebody else's thing
    ├── NotFound                404
    ├── Conflict                409  well-formed, but not in the present state of things
    ├── TooLarge                413
    ├── TooMany                 429
    └── Unavailable             503  a part that is needed does not answer
    SettingsError               the administrator's settings file is wrong; every problem with its place

Everything else is a bug: it is logged with an id, and users are shown that id.
"""

from collections.abc import Mapping, Sequence


class PublicError(Exception):
    """A refusal whose message is written for the user.

    `message` is one plain sentence that says what is wrong and what to do; `reason` is a stable
    lower-case word (a metric label, a thing for programs); `fields` maps the name of an option to
    its own sentence where the trouble can be pinned down.
    """

    status = 400
    default_reason = "invalid"

    def __init__(
        self, message: str, *, reason: str | None = None, fields: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.fields = dict(fields or {})


class InvalidOptions(PublicError):
    """One or more options cannot be understood or contradict each other."""

    default_reason = "invalid-options"

    def __init__(self, fields: Mapping[str, str], *, reason: str | None = None) -> None:
        super().__init__(" ".join(fields.values()), reason=reason, fields=fields)


class PolicyDenied(PublicError):
    """The request is well-formed, but a policy refuses it."""

    status = 403
    default_reason = "policy"


class NotAllowed(PublicError):
    """The caller may not see or do this."""

    status = 403
    default_reason = "not-allowed"


class NotFound(PublicError):
    """There is no such thing, or none that the caller may see."""

    status = 404
    default_reason = "not-found"


class Conflict(PublicError):
    """The thing is not in a state in which this can be done."""

    status = 409
    default_reason = "conflict"


class TooLarge(PublicError):
    """The request's body is larger than any sensible one."""

    status = 413
    default_reason = "too-large"


class TooMany(PublicError):
    """More at a time than one person may have."""

    status = 429
    default_reason = "too-many"


class Unavailable(PublicError):
    """A part that is needed for this does not answer; trying again later helps."""

    status = 503
    default_reason = "unavailable"


class SettingsError(Exception):
    """The settings file is wrong: `problems` holds (place, sentence) pairs, all of them at once."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{place}: {sentence}" for place, sentence in problems))
