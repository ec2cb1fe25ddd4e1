"""A peerpost client that blocks: one user, who sends and follows their mailbox."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc

from following import CALL_TIMEOUT_S, CHANNEL_OPTIONS, RETRY_FOR_S, Backoff, Position, is_retriable
from peerpost.v1 import messaging_pb2 as pb
from peerpost.v1.messaging_pb2_grpc import MessagingServiceStub


def connect(server: str) -> grpc.Channel:
    """One channel serves everybody in the program, from any thread. Behind TLS:
    `grpc.secure_channel(server, grpc.ssl_channel_credentials(), CHANNEL_OPTIONS)`."""
    return grpc.insecure_channel(server, CHANNEL_OPTIONS)


class Peer:
    """A user, by the token that registering gave out."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self.token = token
        self._stub = MessagingServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {token}")]

    @classmethod
    def register(cls, channel: grpc.Channel, username: str) -> Peer:
        """Takes a new name. Keep the peer's `token`: it is shown this once. For the same reason this
        is not attempted again: if the answer is lost, so is the name."""
        request = pb.RegisterRequest(username=username)
        response = MessagingServiceStub(channel).Register(request, timeout=CALL_TIMEOUT_S)
        return cls(channel, response.token)

    def send(self, to_user: str, text: str, request_id: str) -> pb.Message:
        """Returns once the message is on disk, attempting it again for as long as the server cannot
        be reached. With the same `request_id` it is stored once, however often it is sent."""
        request = pb.SendMessageRequest(to_user=to_user, text=text, request_id=request_id)
        backoff = Backoff()
        give_up = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                return self._stub.SendMessage(
                    request, timeout=CALL_TIMEOUT_S, metadata=self._metadata
                ).message
            except grpc.RpcError as error:
                if not is_retriable(error) or time.monotonic() > give_up:
                    raise
                time.sleep(backoff.next_delay_s(error))

    def follow(self, position: Position) -> Iterator[pb.Message]:
        """Yields every entry of the mailbox after `position`, through history into live delivery,
        each once and in order, connecting again for as long as it takes. Closing the generator ends
        the subscription; errors that connecting again does not mend are raised."""
        backoff = Backoff()
        while True:
            events = self._stub.Subscribe(position.request(), metadata=self._metadata)
            try:
                for event in events:
                    message = position.accept(event)
                    # A server that accepts and then fails is left in peace: `started` is no progress.
                    if event.WhichOneof("event") != "started":
                        backoff.reset()
                    if message is not None:
                        yield message
                delay_s = 0.1  # The server ended the stream, which it does with an error.
            except grpc.RpcError as error:
                if not is_retriable(error):
                    raise
                delay_s = backoff.next_delay_s(error)
            finally:
                events.cancel()
            time.sleep(delay_s)
