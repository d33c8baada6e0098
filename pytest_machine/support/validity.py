"""Certificates that TLS refuses, in words: which of them, and by whose clock."""

from __future__ import annotations

import errno
from datetime import UTC, datetime

from . import clock

# OpenSSL's numbers.
_NOT_YET, _NO_MORE = 9, 10
_OTHER_NAME = (62, 64)
# What a server that has looked at its own clock says of a client's certificate.
_EXPIRED_THERE = "CERTIFICATE_EXPIRED"


def untimely(error: BaseException) -> str:
    """Return that a certificate is not valid yet or any more, and by which clock; empty for any other error."""
    code = getattr(error, "verify_code", None)
    if code in (_NOT_YET, _NO_MORE):
        now = datetime.fromtimestamp(clock.now(), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"the certificate is not valid {'yet' if code == _NOT_YET else 'any more'}; {_HERE} says {now}"
    if str(getattr(error, "reason", "")).endswith(_EXPIRED_THERE):
        return "the client's certificate is not valid any more; the clock of the machine says so"
    return ""


_HERE = "the clock of this computer"


def refusal(error: BaseException) -> str:
    """Return why TLS does not come about, where a certificate is the reason; empty where none is."""
    if found := untimely(error):
        return found
    if (code := getattr(error, "verify_code", None)) is not None:
        if code in _OTHER_NAME:
            return "the certificate is for another address: docker-machine regenerate-certs NAME"
        return f"the certificate is not signed by the machine's authority ({getattr(error, 'verify_message', code)})"
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EISDIR, errno.EACCES, errno.ELOOP):
        return f"a certificate of the client cannot be read ({error.strerror})"
    # `ssl.SSLError`, whose module is slow to import: a file that OpenSSL cannot read has no reason, but words.
    reason = str(getattr(error, "reason", "") or (error if type(error).__name__ == "SSLError" else ""))
    if "CERTIFICATE" in reason or "PEM" in reason or "KEY_VALUES" in reason:
        return f"a certificate or its key is refused ({reason.replace('_', ' ').lower()})"
    return ""
