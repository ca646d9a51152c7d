"""Giving Redis back what it has forgotten."""
