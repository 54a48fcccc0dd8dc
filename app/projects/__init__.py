"""Projects of the API."""
