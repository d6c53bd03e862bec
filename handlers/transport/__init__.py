"""Bytes of the frontend's socket to batches of requests, and answers back to bytes."""
