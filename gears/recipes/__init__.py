"""What runs inside Redis, one recipe per engine."""
