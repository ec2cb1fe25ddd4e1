"""As main.py, for asyncio."""

from __future__ import annotations

import asyncio
import secrets
import sys

import grpc

from aio_peer import Peer, connect
from following import Position, explain

# How long what was sent may be on its way, a restart of the server included.
ARRIVES_WITHIN_S = 60


async def main(server: str, count: int) -> None:
    async with connect(server) as channel, asyncio.TaskGroup() as tasks:
        suffix = secrets.token_hex(4)
        alice_name, bob_name = f"alice-asyncio-{suffix}", f"bob-asyncio-{suffix}"
        alice = await Peer.register(channel, alice_name)
        bob = await Peer.register(channel, bob_name)
        print("registered", alice_name, bob_name, flush=True)

        print("refused", *await refused_send(alice), flush=True)

        position = Position()
        # If the task fails, its group ends the sending as well.
        following = tasks.create_task(receive(bob, position, count))
        for number in range(1, count + 1):
            sent = await alice.send(bob_name, str(number), request_id=f"number-{number}")
            # Her own mailbox is numbered without a hole too: nothing was stored twice.
            if sent.sequence != number:
                raise ValueError(f"message {number} was stored as {sent.sequence}")
            if number % (count // 4) == 0:
                print("sent", number, flush=True)
        # As after an answer that was lost: what has this request_id is there already.
        repeated = await alice.send(bob_name, str(count), request_id=f"number-{count}")
        if repeated.sequence != count:
            raise ValueError(f"message {count} was stored again, as {repeated.sequence}")
        await asyncio.wait_for(following, ARRIVES_WITHIN_S)

    reconnections = position.connections - 1
    print(f"ok asyncio: {count} messages, each once and in order; reconnected {reconnections} times")


async def refused_send(alice: Peer) -> tuple[str, str]:
    """What the server says to a name that can be none: the reason, and the field that is wrong."""
    try:
        await alice.send("no such name!", "hello", request_id="refused")
    except grpc.RpcError as error:
        refusal = explain(error)
        return refusal.reason, " ".join(refusal.fields)
    raise ValueError("a malformed name was accepted")


async def receive(bob: Peer, position: Position, count: int) -> None:
    """Follows until `count` messages have come, and fails unless they are 1, 2, 3, …"""
    number = 0
    async for message in bob.follow(position):
        number += 1
        if (message.sequence, message.text) != (number, str(number)):
            raise ValueError(f"instead of {number} came {message.text!r} as {message.sequence}")
        if number == count:
            return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
