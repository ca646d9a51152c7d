"""Keys are compared a moment after they changed."""
