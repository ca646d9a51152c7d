"""The processes that the launcher runs."""
