"""Writing a batch: what failed is told apart, and what waits for one another is written in its order."""
