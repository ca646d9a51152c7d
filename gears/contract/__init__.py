"""What Redis, the worker and the service agree on: mappings, keys, entries, tokens, versions, documents."""
