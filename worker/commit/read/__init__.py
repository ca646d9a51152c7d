"""Reading a batch, and deciding what it means."""
