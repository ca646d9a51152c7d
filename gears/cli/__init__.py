"""What commands of all packages share: they say whom they wait for, and end at once when they are told to."""
