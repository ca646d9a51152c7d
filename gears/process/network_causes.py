"""Why a server isn't reached: what drivers and operating systems say, in a few words of ours."""

import re

_CAUSES = (
    (r"(\[Errno|Error) (111|61|10061)\b|refused", "connection refused"),
    (r"(\[Errno|Error) -\d+\b|Name or service|name resolution|getaddrinfo|DNS", "its name is not known"),
    (r"CERTIFICATE_VERIFY_FAILED|certificate verify failed", "its TLS certificate is not accepted"),
    (r"SSL|TLS|certificate", "TLS could not be agreed on"),
    (r"[Aa]uthentication failed", "authentication failed"),
    (r"operation cancelled", "given up, since the server no longer answers the driver's checks"),
    (r"(\[Errno|Error) (113|101|65|51)\b|unreachable", "unreachable"),
    (r"checking out a connection", "no connection was free in time"),
    (r"timed out|Timeout (connecting|reading|writing)|No servers found yet", "timed out"),
    (r"closed|reset|Broken pipe|EOF|aborted", "the connection broke"),
    (r"members available for replica set name", "it is no member of the replica set that the URI names"),
    (r"No primary available|topology_type: ReplicaSetNoPrimary", "the replica set has no primary"),
    (r"wire version", "the server's version and the driver's don't fit"),
    (r"No connection available", "no connection was free in time"),
)


def cause_of(text: str) -> str | None:
    """The cause in what was said; None where nobody knows."""
    return next((cause for pattern, cause in _CAUSES if re.search(pattern, text)), None)
