"""Everything the knowledge store raises on purpose.

    KnowledgeError
    └── ProtocolError         what a core wrote is not a call, or stands where no call may stand
"""


class KnowledgeError(Exception):
    """Base of every error of this package; its text says what to do."""


class ProtocolError(KnowledgeError):
    """A core's text breaks the protocol between a core and its memory."""
