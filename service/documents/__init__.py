"""The documents of a mapping over HTTP."""
