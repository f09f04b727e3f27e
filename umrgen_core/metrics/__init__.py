"""Metrics for Prometheus, by its official client: what both processes count, and where it is shown."""
