"""``python -m otel_shim.cli``, for an interpreter whose scripts are not on PATH."""

import sys

from otel_shim.cli import main

sys.exit(main())
