"""What both Python clients share, the blocking one and the one for asyncio: where a follower stands,
what an error says, and how long to wait before the next attempt. Nothing here does I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from peerpost.v1 import messaging_pb2 as pb

# How long one attempt of a call may take, and how long a call is attempted again.
CALL_TIMEOUT_S = 10
RETRY_FOR_S = 60
# The wait between two attempts doubles from the first to the last.
DELAY_MIN_S = 0.1
DELAY_MAX_S = 5

CHANNEL_OPTIONS = [
    # A machine that vanished sends no goodbye: ask it every 20 seconds whether it is still there.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # gRPC's own wait before it connects again grows to two minutes unless it is told otherwise.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


class HoleError(Exception):
    """The server left out an entry, which it promises not to: better to stop than to lose it."""


@dataclass
class Position:
    """Where a follower stands in its mailbox. To go on after a restart of your own program, store
    `sequence` and `epoch` together with what you did with the message, and begin with them."""

    sequence: int = 0
    """Everything up to here has been delivered."""
    epoch: str = ""
    """The database that `sequence` counts in: another one is refused, not followed by mistake."""
    connections: int = 0
    """How many subscriptions have started so far."""

    def request(self) -> pb.SubscribeRequest:
        return pb.SubscribeRequest(after_sequence=self.sequence, epoch=self.epoch)

    def accept(self, response: pb.SubscribeResponse) -> pb.Message | None:
        """Takes the next event. Returns the message to deliver, if it brings one."""
        match response.WhichOneof("event"):
            case "started":
                self._expect(response.started.after_sequence)
                self.epoch = response.started.epoch
                self.connections += 1
            case "message":
                message = response.message
                if message.sequence <= self.sequence:
                    return None  # A duplicate.
                self._expect(message.sequence - 1)
                self.sequence = message.sequence
                return message
            case "caught_up":
                self._expect(response.caught_up.through_sequence)
            case "heartbeat":
                self._expect(response.heartbeat.through_sequence)
            # Anything else comes from a newer contract, which asks to be ignored.
        return None

    def _expect(self, through: int) -> None:
        """Everything up to `through` has been delivered, the server says. That is so, as long as
        everything is followed; with received_only, `through` would be the new position."""
        if through > self.sequence:
            raise HoleError(f"delivered up to {self.sequence}, and the server goes on after {through}")


@dataclass
class Refusal:
    """What an error says beside its status: google.rpc's ErrorInfo, BadRequest and RetryInfo."""

    reason: str = ""
    """A name out of error_reason.proto. Empty when the error is not the server's own."""
    fields: dict[str, str] = field(default_factory=dict)
    """The request's fields that were wrong, and what each may hold."""
    retry_delay_s: float | None = None
    """How long the server asks to be left alone."""


def explain(error: grpc.RpcError) -> Refusal:
    refusal = Refusal()
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            refusal.reason = info.reason
        elif detail.Unpack(bad):
            refusal.fields = {v.field: v.description for v in bad.field_violations}
        elif detail.Unpack(retry):
            refusal.retry_delay_s = retry.retry_delay.ToTimedelta().total_seconds()
    return refusal


def is_retriable(error: grpc.RpcError) -> bool:
    """Whether the same call can succeed later: the server is not there, or refused for now. Whether
    a send was stored is then unknown, and its request_id makes repeating it harmless."""
    code = error.code()
    return code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) or (
        code == grpc.StatusCode.RESOURCE_EXHAUSTED and explain(error).retry_delay_s is not None
    )


class Backoff:
    """Waits that double, with jitter: clients that failed together do not come back together."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Something worked: the next failure starts again from the shortest wait."""
        self._step_s = DELAY_MIN_S

    def next_delay_s(self, error: grpc.RpcError) -> float:
        """How long to wait after this failure; at least as long as the server asks for."""
        delay_s = self._step_s * random.uniform(0.5, 1)
        self._step_s = min(self._step_s * 2, DELAY_MAX_S)
        return max(delay_s, explain(error).retry_delay_s or 0)
