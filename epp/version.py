"""The version of the endpoint picker, read by the build and by --version."""

VERSION = "0.1.0"
__version__ = VERSION
