"""The HTTP client: `isoloss.Client`, the documents it returns and the errors it raises."""

from isoloss.client.errors import ApiError
from isoloss.client.session import Client

__all__ = ["ApiError", "Client"]
