"""Audits and sweeps: what differs is found, proven and repaired."""
