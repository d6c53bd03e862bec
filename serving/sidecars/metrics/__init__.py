"""The metrics page that the front door serves to Prometheus."""
