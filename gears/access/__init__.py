"""Least privilege: users for the service, the worker and plain clients, who may do their work and nothing more."""
