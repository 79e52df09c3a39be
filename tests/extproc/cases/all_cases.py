"""All transcripts. Ids ``Cnn`` are those of the project's conformance table."""

from __future__ import annotations

from tests.extproc.cases.illegal_orders import ILLEGAL_ORDERS
from tests.extproc.cases.interrupting_replies import INTERRUPTING_REPLIES
from tests.extproc.cases.mode_buffered import MODE_BUFFERED
from tests.extproc.cases.mode_streamed import MODE_STREAMED
from tests.extproc.cases.mode_unseen import MODE_UNSEEN
from tests.extproc.cases.request_answers import REQUEST_ANSWERS
from tests.extproc.cases.request_bodies import REQUEST_BODIES
from tests.extproc.cases.request_limits import REQUEST_LIMITS
from tests.extproc.cases.response_hooks import RESPONSE_HOOKS
from tests.extproc.cases.response_names import RESPONSE_NAMES
from tests.extproc.cases.response_passing import RESPONSE_PASSING
from tests.extproc.cases.stream_ends import STREAM_ENDS

CASES = (
    *REQUEST_BODIES,
    *REQUEST_ANSWERS,
    *REQUEST_LIMITS,
    *MODE_BUFFERED,
    *MODE_STREAMED,
    *MODE_UNSEEN,
    *RESPONSE_PASSING,
    *RESPONSE_HOOKS,
    *RESPONSE_NAMES,
    *STREAM_ENDS,
    *INTERRUPTING_REPLIES,
    *ILLEGAL_ORDERS,
)
