"""How far everything is, as it is kept in Redis and MongoDB and shown by `/sync`."""
