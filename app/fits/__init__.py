"""Fits of the API."""
