"""Points of the API."""
