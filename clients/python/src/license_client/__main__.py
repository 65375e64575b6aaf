"""`python -m license_client`: the command line."""

import sys

from license_client.cli import main

sys.exit(main())
