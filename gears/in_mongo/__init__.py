"""Talking to MongoDB: documents, tombstones, the log, dead letters, and what its errors mean."""
