"""The HTTP resource of a mapping: its collection, its items, and many at a time."""
