"""`NotStarted`: why a session does not start, as one sentence that reaches the user by every way the Hub has."""

from jupyterhub.spawner import SpawnException


class NotStarted(SpawnException):
    """A start that ends without a session; `reason` is a stable word, also the label in the Hub's metrics."""

    def __init__(self, message: str, *, reason: str, status: int = 500) -> None:
        super().__init__(message, reason=reason, status_code=status)
        # What the progress stream and the page show; without it they show nothing, or the exception's own text.
        self.jupyterhub_message = message
