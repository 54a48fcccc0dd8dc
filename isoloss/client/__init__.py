"""The HTTP client `isoloss.Client`, the recorder that `isoloss.init` makes, and the errors they raise."""

from isoloss.client.errors import ApiError
from isoloss.client.recorder import Recorder, init
from isoloss.client.session import Client

__all__ = ["ApiError", "Client", "Recorder", "init"]
