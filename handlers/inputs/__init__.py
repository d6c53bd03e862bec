"""From a request's body and headers to examples."""
