"""Monitoring: scrapes and alert rules for Prometheus, and the dashboard, for Grafana or as a picture."""
