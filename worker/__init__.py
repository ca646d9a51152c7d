"""The write-through worker: brings what the recipe captured to MongoDB."""
