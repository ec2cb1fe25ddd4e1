"""Two peers, messages between them, and proof that each arrived once and in order: see ../README.md."""

from __future__ import annotations

import secrets
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from following import Position, explain
from peer import Peer, connect

# How long what was sent may be on its way, a restart of the server included.
ARRIVES_WITHIN_S = 60


def main(server: str, count: int) -> None:
    # The channel closes before the pool waits for its threads, and that ends what still follows.
    with ThreadPoolExecutor() as pool, connect(server) as channel:
        suffix = secrets.token_hex(4)
        alice_name, bob_name = f"alice-python-{suffix}", f"bob-python-{suffix}"
        alice = Peer.register(channel, alice_name)
        bob = Peer.register(channel, bob_name)
        print("registered", alice_name, bob_name, flush=True)

        print("refused", *refused_send(alice), flush=True)

        position = Position()
        following = pool.submit(receive, bob, position, count)
        for number in range(1, count + 1):
            sent = alice.send(bob_name, str(number), request_id=f"number-{number}")
            # Her own mailbox is numbered without a hole too: nothing was stored twice.
            if sent.sequence != number:
                sys.exit(f"message {number} was stored as {sent.sequence}")
            if number % (count // 4) == 0:
                print("sent", number, flush=True)
        # As after an answer that was lost: what has this request_id is there already.
        repeated = alice.send(bob_name, str(count), request_id=f"number-{count}")
        if repeated.sequence != count:
            sys.exit(f"message {count} was stored again, as {repeated.sequence}")
        following.result(timeout=ARRIVES_WITHIN_S)

    reconnections = position.connections - 1
    print(f"ok python: {count} messages, each once and in order; reconnected {reconnections} times")


def refused_send(alice: Peer) -> tuple[str, str]:
    """What the server says to a name that can be none: the reason, and the field that is wrong."""
    try:
        alice.send("no such name!", "hello", request_id="refused")
    except grpc.RpcError as error:
        refusal = explain(error)
        return refusal.reason, " ".join(refusal.fields)
    sys.exit("a malformed name was accepted")


def receive(bob: Peer, position: Position, count: int) -> None:
    """Follows until `count` messages have come, and fails unless they are 1, 2, 3, …"""
    for number, message in zip(range(1, count + 1), bob.follow(position)):
        if (message.sequence, message.text) != (number, str(number)):
            raise ValueError(f"instead of {number} came {message.text!r} as {message.sequence}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
