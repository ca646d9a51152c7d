"""`writethrough check`: what the two servers can do, tried out, and what follows where one can't."""
