"""Leading a mapping: one committer at a time, its recipe in place."""
