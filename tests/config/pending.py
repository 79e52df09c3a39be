"""Rules of the configuration that cannot be tested yet, and what each waits for.

Every document of the samples is a test case; these are the parts of the rules that no document can reach today.
"""

from __future__ import annotations

PENDING: dict[str, str] = {
    "CFG110, a consumer in a lower layer than its producer": "producers are not run in layers; the order of creation decides",
    "CFG056, ranges that only an instance can judge, for types that are not built": "their factories",
    "V10, the ZMQ socket is bound on 5557": "precise-prefix-cache-scorer",
    "V26, scorers see None": "covered by the scorers' own tests; loading is tested here",
    "WRN018, deprecated environment variables": "read where the environment is read, beside the flags",
    "WRN007, podLabelSelector that shares no label with the pool's own": "discovery through the Kubernetes API",
    "reload: which fields can change while serving": "the watched configuration file",
}
