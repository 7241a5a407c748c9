"""A limit on the heads of requests, which uvicorn does not have: it would hold whatever anybody sends."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Bytes of request line and headers. The gateway refuses fewer, with an error that its clients can show.
HEAD_LIMIT = 128 * 1024

_SAID = b"The head of the request is too large"
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_SAID), _SAID)
)


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol on httptools; a head that goes on beyond `HEAD_LIMIT` is answered with 431.

    What is counted begins with the first piece of a head that did not complete it, so that what came with the
    end of an earlier request does not count.
    """

    _in_head = False
    _head_size = 0

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        super().data_received(data)
        if not (was_in_head and self._in_head):
            self._head_size = 0
            return
        self._head_size += len(data)
        if self._head_size > HEAD_LIMIT and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
