"""HTTP/1.1 as uvicorn speaks it, with a bound on the request's head and problem details for what isn't HTTP."""

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problems import BAD_REQUEST, HEAD_TOO_LARGE, MEDIA_TYPE, ProblemType, problem_json

MAX_HEAD = 64 * 1024
"""Largest request line and headers in bytes; the parser itself knows no bound."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    _in_head = True
    _head_size = 0

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._head_size += len(data)
        super().data_received(data)
        if self._in_head and self._head_size > MAX_HEAD and not self.transport.is_closing():
            self._refuse(HEAD_TOO_LARGE, f"the request line and headers are longer than {MAX_HEAD // 1024} KiB")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head_size = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Its head has been read."""
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What was sent isn't HTTP."""
        self._refuse(BAD_REQUEST, msg)

    def _refuse(self, kind: ProblemType, detail: str) -> None:
        content = problem_json(kind, detail)
        head = (
            f"HTTP/1.1 {kind.status} {HTTPStatus(kind.status).phrase}\r\n"
            f"content-type: {MEDIA_TYPE}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()
