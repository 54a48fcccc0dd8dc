"""Events of the API."""
