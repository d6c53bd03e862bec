"""A worker's metrics, and the file from which the front door reads them."""
