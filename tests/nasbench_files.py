"""NAS-Bench-101 files made by hand: framing, rows and protobuf messages in plain Python, which share nothing with the reader."""

import base64
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spd_fast import Cell

MOMENTS = ("halfway", "final")
METRICS = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit, RFC 3720."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> bytes:
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(payload: bytes, crc: Callable[[bytes], int] = crc32c) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(crc(length)) + payload + masked(crc(payload))


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    encoded = b""
    while value >= 128:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def number(field: int, value: float) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<d", value)


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def evaluation(epoch: float, values: Sequence[float]) -> bytes:
    return b"".join(number(i, value) for i, value in enumerate([epoch, *values], start=1))


def metrics(epochs: int, parameters: int, halfway: Sequence[float], final: Sequence[float]) -> bytes:
    """ModelMetrics: halfway and final hold training time, train, validation and test accuracy."""
    evaluations = [evaluation(0, [0, 0.1, 0.1, 0.1]), evaluation(epochs / 2, halfway), evaluation(epochs, final)]
    return (
        b"".join(text(1, each) for each in evaluations)
        + varint(2 << 3)
        + varint(parameters)
        + number(3, 1.5 * final[0])
    )


def row(module_hash: str, epochs: int, adjacency: str, ops: str, message: bytes) -> bytes:
    """A payload as the official files have it: base64 with a newline after every 76 characters."""
    return json.dumps([module_hash, epochs, adjacency, ops, base64.encodebytes(message).decode()]).encode()


def payload(cell: Cell, epochs: int, values: Sequence[Sequence[float]], parameters: int = 1000) -> bytes:
    adjacency = "".join(map(str, cell.matrix.ravel().tolist()))
    return row(cell.module_hash, epochs, adjacency, ",".join(cell.ops), metrics(epochs, parameters, *values))


def random_values(rng: np.random.Generator) -> list[list[float]]:
    """Halfway and final metrics that float32 holds exactly."""
    return [
        [float(np.float32(rng.uniform(1, 2000))), *(float(np.float32(rng.random())) for _ in range(3))] for _ in MOMENTS
    ]


def write(path: Path, payloads: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(frame(each) for each in payloads))
    return path


def unframed(data: bytes) -> list[list[Any]]:
    """The rows of a file, by TensorFlow's description of the format alone."""
    rows, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        rows.append(json.loads(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return rows
