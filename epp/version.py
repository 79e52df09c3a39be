"""The version of the endpoint picker, read by the build and by --version."""

import os

VERSION = "0.1.0"
__version__ = VERSION


def commit() -> str:
    """The commit that an image was built from (build argument), or ""."""
    return os.environ.get("EPP_BUILD_COMMIT", "")
