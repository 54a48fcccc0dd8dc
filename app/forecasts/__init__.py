"""Forecasts of the API."""
