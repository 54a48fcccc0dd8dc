"""Laws of the API."""
