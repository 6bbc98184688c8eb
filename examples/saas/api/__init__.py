"""The API of a staff planning product: organisations plan shifts, publish them and pay for it.

Written as any FastAPI backend is; only `optional_identity` knows of otel-shim.
"""
