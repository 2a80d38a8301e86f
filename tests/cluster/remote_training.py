"""The command cm-ray with leases that end after seconds, so that tests need not wait half a minute."""

import sys

from cm_ray.command_line.main import main
from cm_ray.remote import lease

lease.LEASE_S = 5.0

if __name__ == "__main__":
    sys.exit(main())
