"""The alerts, dashboards and their simulation."""
