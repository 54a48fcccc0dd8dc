"""Sweeps: small models trained over a space of settings."""
