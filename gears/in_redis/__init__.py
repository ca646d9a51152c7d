"""Talking to Redis."""
