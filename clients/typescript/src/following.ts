// Where a follower stands, what an error says, and how long to wait before the next attempt: nothing
// here does I/O. The same code runs in Node and in the browser.
import { create } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb";
import {
  type Message,
  type SubscribeRequest,
  SubscribeRequestSchema,
  type SubscribeResponse,
} from "./gen/peerpost/v1/messaging_pb";

/** The wait between two attempts doubles from the first to the last. */
const DELAY_MIN_MS = 100;
const DELAY_MAX_MS = 5_000;

/** The server left out an entry, which it promises not to: better to stop than to lose it. */
export class HoleError extends Error {}

/**
 * Where a follower stands in its mailbox. To go on after a restart of your own program, store
 * `sequence` and `epoch` together with what you did with the message, and begin with them.
 */
export class Position {
  /** How many subscriptions have started so far. */
  connections = 0;

  constructor(
    /** Everything up to here has been delivered. */
    public sequence = 0n,
    /** The database that `sequence` counts in: another one is refused, not followed by mistake. */
    public epoch = "",
  ) {}

  request(): SubscribeRequest {
    return create(SubscribeRequestSchema, {
      start: { case: "afterSequence", value: this.sequence },
      epoch: this.epoch,
    });
  }

  /** Takes the next event. Returns the message to deliver, if it brings one. */
  accept({ event }: SubscribeResponse): Message | undefined {
    switch (event.case) {
      case "started":
        this.expect(event.value.afterSequence);
        this.epoch = event.value.epoch;
        this.connections++;
        return undefined;
      case "message":
        if (event.value.sequence <= this.sequence) return undefined; // A duplicate.
        this.expect(event.value.sequence - 1n);
        this.sequence = event.value.sequence;
        return event.value;
      case "caughtUp":
      case "heartbeat":
        this.expect(event.value.throughSequence);
        return undefined;
      default: // From a newer contract, which asks to ignore it.
        return undefined;
    }
  }

  /**
   * Everything up to `through` has been delivered, the server says. That is so, as long as everything
   * is followed; with receivedOnly, `through` would be the new position.
   */
  private expect(through: bigint): void {
    if (through > this.sequence) {
      throw new HoleError(`delivered up to ${this.sequence}, and the server goes on after ${through}`);
    }
  }
}

/** What an error says beside its status: google.rpc's ErrorInfo, BadRequest and RetryInfo. */
export interface Refusal {
  /** A name out of error_reason.proto. Unset when the error is not the server's own. */
  reason?: string;
  /** The request's fields that were wrong, and what each may hold. */
  fields: { field: string; description: string }[];
  /** How long the server asks to be left alone. */
  retryDelayMs?: number;
}

export function explain(error: ConnectError): Refusal {
  const delay = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return {
    reason: error.findDetails(ErrorInfoSchema)[0]?.reason,
    fields: error.findDetails(BadRequestSchema).flatMap((bad) => bad.fieldViolations),
    retryDelayMs: delay && durationMs(delay),
  };
}

/**
 * Whether the same call can succeed later: the server is not there, or refused for now. Whether a send
 * was stored is then unknown, and its requestId makes repeating it harmless.
 */
export function isRetriable(error: unknown): error is ConnectError {
  if (!(error instanceof ConnectError)) return false;
  const { reason, retryDelayMs } = explain(error);
  switch (error.code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
      return true;
    case Code.ResourceExhausted:
      return retryDelayMs !== undefined;
    case Code.Unimplemented:
      return false;
    default:
      // All that peerpost itself says has a reason. What has none is a connection that broke, which
      // browsers report as "Failed to fetch", or as a stream without an end.
      return reason === undefined;
  }
}

/** Waits that double, with jitter: clients that failed together do not come back together. */
export class Backoff {
  private stepMs = DELAY_MIN_MS;

  /** Something worked: the next failure starts again from the shortest wait. */
  reset(): void {
    this.stepMs = DELAY_MIN_MS;
  }

  /** Waits after this failure, at least as long as the server asks for. */
  async wait(error?: ConnectError): Promise<void> {
    const ownMs = this.stepMs * (0.5 + Math.random() / 2);
    const askedMs = (error && explain(error).retryDelayMs) ?? 0;
    this.stepMs = Math.min(this.stepMs * 2, DELAY_MAX_MS);
    await new Promise((resolve) => setTimeout(resolve, Math.max(ownMs, askedMs)));
  }
}
