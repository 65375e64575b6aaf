"""What a WSGI host loads: `application`, for PythonAnywhere and every host whose web processes may have no threads.

Settings come from a `.env` beside this file; what the environment says goes before it. Nothing runs between two
requests: the node's supervisor is `flask node run-supervisor`, a task that the host keeps alive. A host on which
`cd api && python app.py` can be started has no use for this file.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# Hosts load this file by its path, from a folder of their own.
sys.path.insert(0, str(ROOT))

from dotenv import load_dotenv  # noqa: E402

from api.app import create_app  # noqa: E402

os.umask(0o077)  # what a node writes is for its own user only
load_dotenv(ROOT / ".env")
application = create_app(background=False)
