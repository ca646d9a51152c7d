"""The systems under test, and what drives them."""
