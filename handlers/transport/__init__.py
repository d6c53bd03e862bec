"""From bytes of the frontend's socket to batches of requests, and back."""
