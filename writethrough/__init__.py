"""The command `writethrough`: what the packages `service`, `worker` and `gears` do, under one name."""
