"""``prefix.md``: cached prefixes, tokenization, KV events, disaggregation, stored responses."""

from __future__ import annotations

from tests.spec.capabilities import PRECISE_PREFIX_CACHE
from tests.spec.document import Document

_PLUGINS = "tests/unit/plugins"
_STORE = f"{_PLUGINS}/responses_store"
_CONFIG = "config-and-ops.md"

DOCUMENT = Document(
    "prefix.md",
    counts={"prefix ": 121},
    tested={
        f"{_PLUGINS}/prefix/test_approximate.py": "1-12 17-27 29-31",
        f"{_PLUGINS}/prefix/test_keys.py": "13",
        f"{_PLUGINS}/prefix/test_lru_index.py": "14-16 32",
        f"{_PLUGINS}/test_parameters.py": "28 90 92",
        f"{_PLUGINS}/test_prefix_scorers.py": "33 81",
        f"{_PLUGINS}/tokenization/test_template.py": "97 98",
        f"{_PLUGINS}/test_pd_profile_handler.py": "103-105 114 115",
        f"{_PLUGINS}/test_deciders.py": "106-109",
        "tests/conformance/test_plugins.py": "110",
        f"{_PLUGINS}/test_request_plugins.py": "111 112",
        f"{_PLUGINS}/test_disagg_profile_handler.py": "113",
        f"{_STORE}/test_history.py": "116-119",
        f"{_STORE}/test_loading.py": "120",
    },
    pending={
        # What parameters are refused is tested already (87, 91), and that tokenizers fail alone (96).
        PRECISE_PREFIX_CACHE: "34-80 82-88 91 93-96 99-102",
    },
    changed={
        "prefix 13": "the contents of blocks are hashed before model and chain are known, as the corrections of the "
        "specification allow: seeds are those of 8.4, keys are not",
        "prefix 32": "what it takes is measured by bench/micro/prefix.py, not asserted on a machine that others use too",
        "prefix 90": "a back end in memory beside Redis is an error too, as X30 of config-and-ops.md has it",
        "prefix 98": "that tokens equal an engine's is shown by the order and the text; no engine runs in tests",
        "prefix 117": "an unknown id is refused, as OpenAI's API does, and so is one that a store that is away may have; "
        "`unknownResponses: forward` leaves the body unchanged",
    },
    same={
        "prefix 89": (_CONFIG, "X29"),
        "prefix 121": (_CONFIG, "V36"),
    },
)
