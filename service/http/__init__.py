"""HTTP, as the API speaks it."""
