"""Jobs of the API."""
