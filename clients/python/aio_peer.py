"""A peerpost client for asyncio: as peer.py, which explains more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from following import CALL_TIMEOUT_S, CHANNEL_OPTIONS, RETRY_FOR_S, Backoff, Position, is_retriable
from peerpost.v1 import messaging_pb2 as pb
from peerpost.v1.messaging_pb2_grpc import MessagingServiceStub


def connect(server: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(server, CHANNEL_OPTIONS)


class Peer:
    """A user, by the token that registering gave out."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self.token = token
        self._stub = MessagingServiceStub(channel)
        self._metadata = [("authorization", f"Bearer {token}")]

    @classmethod
    async def register(cls, channel: grpc.aio.Channel, username: str) -> Peer:
        """Takes a new name. Keep the peer's `token`: it is shown this once."""
        request = pb.RegisterRequest(username=username)
        response = await MessagingServiceStub(channel).Register(request, timeout=CALL_TIMEOUT_S)
        return cls(channel, response.token)

    async def send(self, to_user: str, text: str, request_id: str) -> pb.Message:
        """Returns once the message is on disk; with the same `request_id` it is stored once."""
        request = pb.SendMessageRequest(to_user=to_user, text=text, request_id=request_id)
        backoff = Backoff()
        async with asyncio.timeout(RETRY_FOR_S):
            while True:
                try:
                    response = await self._stub.SendMessage(
                        request, timeout=CALL_TIMEOUT_S, metadata=self._metadata
                    )
                    return response.message
                except grpc.RpcError as error:
                    if not is_retriable(error):
                        raise
                    await asyncio.sleep(backoff.next_delay_s(error))

    async def follow(self, position: Position) -> AsyncIterator[pb.Message]:
        """Yields every entry of the mailbox after `position`, each once and in order, connecting
        again for as long as it takes."""
        backoff = Backoff()
        while True:
            events = self._stub.Subscribe(position.request(), metadata=self._metadata)
            try:
                async for event in events:
                    message = position.accept(event)
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
            await asyncio.sleep(delay_s)
