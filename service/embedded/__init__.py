"""Everything on one machine from wheels: Redis Stack, a MongoDB-compatible server, the worker and the API."""
