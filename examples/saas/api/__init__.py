"""The API of a staff planning product: organisations plan shifts, publish them and pay for it.

Written as any FastAPI backend is; only `optional_identity` and `optional_operations` know of otel-shim.
"""

import os

if "SAAS_FAULTS" in os.environ:  # for drills only; see faults.py
    from . import faults

    faults.install()
