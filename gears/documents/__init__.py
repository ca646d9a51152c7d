"""Documents: JSON, BSON, ids, numbers and sizes; pure."""
