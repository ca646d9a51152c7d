"""Committing: read a batch, decide, write, acknowledge, roll back what was refused."""
