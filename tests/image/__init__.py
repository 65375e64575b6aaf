"""The image, built from the Dockerfile as it stands and run: without Docker, and without a registry of images.

`make image-test` runs `checks.py`, as root on Debian with `apt-get install buildah crun debootstrap`. It takes some
minutes, so it is no part of `make test`; `tests/unit/test_host_files.py` checks there what the Dockerfile says.
"""
