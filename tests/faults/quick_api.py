"""The real web tier with its rounds of upkeep shortened, so that expiry and orphans need no waiting."""

from __future__ import annotations

import sys

from umrgen_api import __main__ as api
from umrgen_api import upkeep

if __name__ == "__main__":
    upkeep.EXPIRY_INTERVAL_S = 0.2
    upkeep.ORPHAN_INTERVAL_S = 0.2
    upkeep.DISK_INTERVAL_S = 0.2
    upkeep.RECOVERY_INTERVAL_S = 0.2
    sys.exit(api.main())
