"""The alert relay: between Prometheus and every Alertmanager, it says which request and which trace.

Alertmanager API v2 in and out. Labels are never touched; ids travel as annotations. Whatever goes
wrong with finding them, alerts are passed on.
"""
