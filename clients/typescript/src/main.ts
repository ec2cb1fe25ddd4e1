// Two peers, messages between them, and proof that each arrived once and in order: see ../README.md.
import { ConnectError } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { randomBytes } from "node:crypto";

import { explain, Position } from "./following";
import { Peer } from "./peer";

/** How long what was sent may be on its way, a restart of the server included. */
const ARRIVES_WITHIN_MS = 60_000;

async function main(server: string, count: number): Promise<void> {
  // One transport serves everybody in the program. Behind TLS: https.
  const transport = createGrpcTransport({ baseUrl: `http://${server}` });
  const suffix = randomBytes(4).toString("hex");
  const [aliceName, bobName] = [`alice-typescript-${suffix}`, `bob-typescript-${suffix}`];
  const alice = await Peer.register(transport, aliceName);
  const bob = await Peer.register(transport, bobName);
  console.log("registered", aliceName, bobName);

  await showRefusal(alice);

  const position = new Position();
  const leaving = new AbortController();
  try {
    // Whichever fails first ends it.
    await Promise.all([
      receive(bob, position, count, leaving.signal),
      sendAll(alice, bobName, count).then(() => {
        setTimeout(() => leaving.abort(), ARRIVES_WITHIN_MS).unref();
      }),
    ]);
  } finally {
    leaving.abort();
  }

  const reconnections = position.connections - 1;
  console.log(`ok typescript: ${count} messages, each once and in order; reconnected ${reconnections} times`);
}

/** Prints what the server says to a name that can be none: the reason, and the field that is wrong. */
async function showRefusal(alice: Peer): Promise<void> {
  try {
    await alice.send("no such name!", "hello", "refused");
  } catch (error) {
    const { reason, fields } = explain(ConnectError.from(error));
    console.log("refused", reason, ...fields.map(({ field }) => field));
    return;
  }
  throw new Error("a malformed name was accepted");
}

/** Follows until `count` messages have come, and fails unless they are 1, 2, 3, … */
async function receive(bob: Peer, position: Position, count: number, signal: AbortSignal): Promise<void> {
  let number = 0;
  for await (const { sequence, body } of bob.follow(position, signal)) {
    number++;
    if (sequence !== BigInt(number) || body.value !== String(number)) {
      throw new Error(`instead of ${number} came ${body.value} as ${sequence}`);
    }
    if (number === count) return;
  }
  throw new Error(`only ${number} came`);
}

async function sendAll(alice: Peer, bobName: string, count: number): Promise<void> {
  for (let number = 1; number <= count; number++) {
    const { sequence } = await alice.send(bobName, String(number), `number-${number}`);
    // Her own mailbox is numbered without a hole too: nothing was stored twice.
    if (sequence !== BigInt(number)) throw new Error(`message ${number} was stored as ${sequence}`);
    if (number % (count / 4) === 0) console.log("sent", number);
  }
  // As after an answer that was lost: what has this requestId is there already.
  const { sequence } = await alice.send(bobName, String(count), `number-${count}`);
  if (sequence !== BigInt(count)) throw new Error(`message ${count} was stored again, as ${sequence}`);
}

await main(process.argv[2], Number(process.argv[3]));
process.exit(); // The transport keeps its connection, and that keeps Node.
