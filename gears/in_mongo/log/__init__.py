"""The log of batches, and what a batch is there."""
