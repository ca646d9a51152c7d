"""A mapping's collection: whether documents can be kept in it, and the indexes that this takes."""
