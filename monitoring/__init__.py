"""What watches the service: Prometheus' scrapes and alerts, and the dashboard, in Grafana or as a picture."""
