"""Health of the API."""
