"""What a worker counts, and the file in which the front door reads it."""
