"""Documents that a unique index keeps apart: who is in whose way, and in which order they can be written."""
