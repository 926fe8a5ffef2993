"""The messages that the C server is tested with, byte for byte: this client makes the same requests and reads the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from smp.header import Header
from smp.message import Request
from smp.os_management import EchoWriteRequest, MCUMgrParametersReadRequest, ResetWriteRequest

from edgekit.errors import DeviceError, EdgekitError
from edgekit.protocol import messages as m
from edgekit.protocol.assembler import Assembler
from edgekit.protocol.faults import response_error
from edgekit.protocol.status import Status

VECTORS = json.loads((Path(__file__).parents[1] / "runner" / "golden" / "messages.json").read_text())
MESSAGES: dict[tuple[int, int], tuple[type[Request], type[m.Reply]]] = {
    (0, 0): (EchoWriteRequest, m.Echo),
    (0, 5): (ResetWriteRequest, m.Empty),
    (0, 6): (MCUMgrParametersReadRequest, m.Parameters),
    (64, 0): (m.InfoRequest, m.Info),
    (64, 1): (m.LoadRequest, m.Loaded),
    (64, 2): (m.StartRequest, m.Started),
    (64, 3): (m.StatusRequest, m.Status),
    (64, 4): (m.RecordsRequest, m.Records),
    (64, 5): (m.StopRequest, m.Empty),
    (64, 6): (m.SaveRequest, m.Saved),
    (64, 7): (m.MetricsRequest, m.MetricsReply),
    (64, 8): (m.ProfileRequest, m.Profile),
    (64, 9): (m.SensorsRequest, m.Empty),
    (64, 10): (m.SessionsRequest, m.Sessions),
    (64, 11): (m.ResumeRequest, m.Started),
    (64, 12): (m.RemoveRequest, m.Empty),
    (64, 13): (m.ShardsRequest, m.Window),
    (64, 14): (m.FetchedRequest, m.Empty),
    (64, 15): (m.DiscardRequest, m.Discarded),
}


def key(message: bytes) -> tuple[int, int]:
    return message[4] << 8 | message[5], message[7]


def payload(message: bytes) -> Any:
    return cbor2.loads(message[Header.SIZE :]) if len(message) > Header.SIZE else {}


def succeeds(vector: dict[str, Any]) -> bool:
    return "err" not in payload(bytes.fromhex(vector["response"]))


GOOD = [v for v in VECTORS if succeeds(v)]
BAD = [v for v in VECTORS if not succeeds(v)]


def test_every_command_has_a_golden_answer() -> None:
    assert {key(bytes.fromhex(v["request"])) for v in GOOD} == set(MESSAGES)


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["name"])
def test_the_request_is_the_golden_one(vector: dict[str, Any]) -> None:
    golden = bytes.fromhex(vector["request"])
    request, _ = MESSAGES[key(golden)]
    known = {name: value for name, value in payload(golden).items() if name in request.model_fields}
    if known != payload(golden):
        pytest.skip("has a key that the specification does not know")
    made = bytes(request.model_validate({**known, "sequence": golden[6]}))
    assert payload(made) == payload(golden)
    assert made[:2] + made[4 : Header.SIZE] == golden[:2] + golden[4 : Header.SIZE]
    if golden[Header.SIZE :] == cbor2.dumps(payload(golden), canonical=True):
        assert made == golden


#: What the golden answers lack until they are made with a runner that has a session host (docs/session-host.md).
PROTOCOL_2 = {"home", "executable", "instance", "disk"}
MICROCONTROLLERS = {"port", "reset", "stack"}  #: what only they tell


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["name"])
def test_the_answer_is_understood(vector: dict[str, Any]) -> None:
    golden = bytes.fromhex(vector["response"])
    assembler = Assembler()
    for byte in golden:
        assert assembler.take() is None
        assembler.feed(bytes([byte]))
    assert assembler.take() == golden
    reply = MESSAGES[key(golden)][1].model_validate(payload(golden))
    for name in type(reply).model_fields.keys() - PROTOCOL_2 - MICROCONTROLLERS:
        assert name in payload(golden), f"the golden answer lacks {name!r}"


@pytest.mark.parametrize("vector", BAD, ids=lambda v: v["name"])
def test_the_error_is_understood(vector: dict[str, Any]) -> None:
    answer = payload(bytes.fromhex(vector["response"]))
    error = response_error(answer, "kitchen")
    assert isinstance(error, EdgekitError)
    if answer["err"]["group"] == m.GROUP:
        assert Status(answer["err"]["rc"]).name in error.message
        assert answer.get("why", "") in error.message
        assert error.hint
    else:
        assert isinstance(error, DeviceError)
