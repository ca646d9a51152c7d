"""What a committer relies on: its lease, and the life of Redis."""
