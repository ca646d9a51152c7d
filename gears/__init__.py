"""What makes Redis write through: mappings, the sync stream contract, the engines and their recipes."""
