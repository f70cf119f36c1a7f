"""The errors a program on the user's side can meet.

    BkaiError             `message`: one sentence for people; `reason`: a stable word for programs
    ├── Refused           the service understood and said no; `fields` has one sentence per option
    ├── NotLoggedIn       there is no token, or it is wrong, or it has expired
    ├── Unreachable       nothing answers at that address; trying again later may help
    └── ServerProblem     something answered, but not as agreed

No error of the HTTP library ever leaves this package.
"""

from jupyterhub_bkai.errors import PublicError


class BkaiError(PublicError):
    """Anything this package raises on purpose."""

    default_reason = "error"


class Refused(BkaiError):
    """The service understood what was asked and said no."""

    default_reason = "refused"


class NotLoggedIn(BkaiError):
    """The service does not know who is asking."""

    default_reason = "not-logged-in"


class Unreachable(BkaiError):
    """Nothing answers, or the answer broke off."""

    default_reason = "unreachable"


class ServerProblem(BkaiError):
    """The service answered, but not with anything this client understands."""

    default_reason = "server-problem"
