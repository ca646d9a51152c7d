"""The benchmark: ours beside what people do instead, on the same servers in the same run."""
