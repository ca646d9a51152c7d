"""Talking to MongoDB: documents, tombstones, the log, dead letters, reports, set-up, and what its errors mean."""
