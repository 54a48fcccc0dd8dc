"""Runs of the API."""
