"""Messages of MongoDB's wire protocol: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/."""

import asyncio
import struct
from collections.abc import Iterable
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

Document = dict[str, Any]

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
CHECKSUM, MORE_TO_COME, EXHAUST_ALLOWED = 1 << 0, 1 << 1, 1 << 16

_HEADER = struct.Struct("<iiii")
_INT = struct.Struct("<I")
_REPLY = struct.Struct("<iqii")
_LARGEST = 64 * 1024 * 1024

_LOSSLESS: CodecOptions[Document] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
_RAW = CodecOptions(document_class=RawBSONDocument)


class NotTheProtocol(Exception):
    """What came in is no message of the protocol."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as it came."""

    data: bytes
    request_id: int
    response_to: int
    opcode: int

    @property
    def flags(self) -> int:
        """The flags of an OP_MSG; 0 for anything else."""
        return int(_INT.unpack_from(self.data, 16)[0]) if self.opcode == OP_MSG else 0

    @property
    def more_to_come(self) -> bool:
        """Whether another message follows without a request, or, of a request, whether nobody waits for a reply."""
        return bool(self.flags & MORE_TO_COME)


async def read_message(reader: asyncio.StreamReader) -> Message:
    """The next message.

    Raises:
        asyncio.IncompleteReadError: the connection ended.
        NotTheProtocol: this is none.
    """
    header = await reader.readexactly(_HEADER.size)
    size, request_id, response_to, opcode = _HEADER.unpack(header)
    if not _HEADER.size <= size <= _LARGEST:
        raise NotTheProtocol(f"a message of {size} bytes")
    return Message(header + await reader.readexactly(size - _HEADER.size), request_id, response_to, opcode)


def pack(request_id: int, response_to: int, opcode: int, payload: bytes) -> bytes:
    """A message."""
    return _HEADER.pack(_HEADER.size + len(payload), request_id, response_to, opcode) + payload


def pack_msg(
    request_id: int,
    response_to: int,
    flags: int,
    body: Dict[str, Any],
    sequences: Dict[str, Iterable[RawBSONDocument]],
) -> bytes:
    """An OP_MSG without a checksum."""
    parts = [_INT.pack(flags & ~CHECKSUM), b"\0", bson.encode(body, codec_options=_LOSSLESS)]
    for name, documents in sequences.items():
        sequence = name.encode() + b"\0" + b"".join(document.raw for document in documents)
        parts += [b"\1", _INT.pack(len(sequence) + 4), sequence]
    return pack(request_id, response_to, OP_MSG, b"".join(parts))


def unpack_msg(message: Message) -> tuple[Document, dict[str, list[RawBSONDocument]]]:
    """The body and the document sequences of an OP_MSG."""
    data, at = message.data, 20
    end = len(data) - (4 if message.flags & CHECKSUM else 0)
    body: Document | None = None
    sequences: dict[str, list[RawBSONDocument]] = {}
    while at < end:
        kind, (size,) = data[at], _INT.unpack_from(data, at + 1)
        section = data[at + 1 : at + 1 + size]
        at += 1 + size
        if kind == 0:
            body = decode(section)
        elif kind == 1:
            name, _, documents = section[4:].partition(b"\0")
            sequences[name.decode()] = bson.decode_all(documents, _RAW)
        else:
            raise NotTheProtocol(f"a section of kind {kind}")
    if body is None:
        raise NotTheProtocol("a message without a body")
    return body, sequences


def unpack_query(message: Message) -> tuple[str, Document]:
    """The namespace and the document of an OP_QUERY."""
    end = message.data.index(b"\0", 20)
    start = end + 1 + 8
    (size,) = _INT.unpack_from(message.data, start)
    return message.data[20:end].decode(), decode(message.data[start : start + size])


def unpack_reply(message: Message) -> Document:
    """The document that a reply holds."""
    if message.opcode == OP_REPLY:
        return decode(message.data[36:])
    return unpack_msg(message)[0]


def pack_reply(request: Message, document: Dict[str, Any], *, request_id: int = 0, flags: int = 0) -> bytes:
    """A reply to this request, in the form that it asked for."""
    if request.opcode == OP_QUERY:
        payload = _REPLY.pack(8, 0, 0, 1) + bson.encode(document, codec_options=_LOSSLESS)
        return pack(request_id, request.request_id, OP_REPLY, payload)
    return pack_msg(request_id, request.request_id, flags, document, {})


def decode(data: bytes | memoryview) -> Document:
    """A BSON document; encoded again it is the same."""
    return bson.decode(data, _LOSSLESS)
