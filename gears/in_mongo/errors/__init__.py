"""MongoDB's errors: codes, what each means to us, and what is said of them."""
