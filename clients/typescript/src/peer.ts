// A peerpost client: one user, who sends and follows their mailbox. Over gRPC in Node, over gRPC-Web in
// the browser: the transport is the only difference.
import { type CallOptions, type Client, type ConnectError, createClient, type Transport } from "@connectrpc/connect";

import { Backoff, isRetriable, type Position } from "./following";
import { type Message, MessagingService } from "./gen/peerpost/v1/messaging_pb";

/** How long one attempt of a call may take, and how long a call is attempted again. */
const CALL_TIMEOUT_MS = 10_000;
const RETRY_FOR_MS = 60_000;
/** The server sends a heartbeat after 30 seconds of silence: a stream silent for longer is dead. */
const SILENCE_MAX_MS = 75_000;

export class Peer {
  private readonly client: Client<typeof MessagingService>;
  private readonly headers: Record<string, string>;

  /** A user, by the token that registering gave out. */
  constructor(
    transport: Transport,
    readonly token: string,
  ) {
    this.client = createClient(MessagingService, transport);
    this.headers = { authorization: `Bearer ${token}` };
  }

  /**
   * Takes a new name. Keep the peer's `token`: it is shown this once. For the same reason this is not
   * attempted again: if the answer is lost, so is the name.
   */
  static async register(transport: Transport, username: string): Promise<Peer> {
    const client = createClient(MessagingService, transport);
    const { token } = await client.register({ username }, { timeoutMs: CALL_TIMEOUT_MS });
    return new Peer(transport, token);
  }

  /**
   * Resolves once the message is on disk, attempting it again while the server cannot be reached. With
   * the same `requestId` it is stored once, however often it is sent.
   */
  async send(toUser: string, text: string, requestId: string): Promise<Message> {
    const backoff = new Backoff();
    const giveUp = performance.now() + RETRY_FOR_MS;
    const options: CallOptions = { headers: this.headers, timeoutMs: CALL_TIMEOUT_MS };
    while (true) {
      try {
        const request = { toUser, body: { case: "text", value: text }, requestId } as const;
        const { message } = await this.client.sendMessage(request, options);
        return message!; // Set whenever the call succeeds.
      } catch (error) {
        if (!isRetriable(error) || performance.now() > giveUp) throw error;
        await backoff.wait(error);
      }
    }
  }

  /**
   * Yields every entry of the mailbox after `position`, through history into live delivery, each once
   * and in order, connecting again for as long as it takes. Leaving the loop ends it, and so does
   * `signal`, while it waits too; what connecting again does not mend is thrown.
   */
  async *follow(position: Position, signal?: AbortSignal): AsyncGenerator<Message, void> {
    const backoff = new Backoff();
    while (!signal?.aborted) {
      let broken: ConnectError | undefined;
      const ending = new AbortController();
      const end = () => ending.abort();
      signal?.addEventListener("abort", end);
      let silence = setTimeout(end, SILENCE_MAX_MS);
      try {
        const options = { headers: this.headers, signal: ending.signal };
        for await (const response of this.client.subscribe(position.request(), options)) {
          clearTimeout(silence);
          silence = setTimeout(end, SILENCE_MAX_MS);
          const message = position.accept(response);
          // A server that accepts and then fails is left in peace: `started` is no progress.
          if (response.event.case !== "started") backoff.reset();
          if (message) yield message;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (!isRetriable(error)) throw error;
        broken = error;
      } finally {
        clearTimeout(silence);
        signal?.removeEventListener("abort", end);
        end();
      }
      await backoff.wait(broken);
    }
  }
}
