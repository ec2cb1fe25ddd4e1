import io.peerpost.v1.Message;
import io.peerpost.v1.SubscribeRequest;
import io.peerpost.v1.SubscribeResponse;
import java.util.Optional;

/**
 * Where a follower stands in its mailbox. To go on after a restart of your own program, store
 * sequence and epoch together with what you did with the message, and begin with them.
 */
final class Position {
  private long sequence;
  private String epoch;
  private int connections;

  /** The beginning. */
  Position() {
    this(0, "");
  }

  Position(long sequence, String epoch) {
    this.sequence = sequence;
    this.epoch = epoch;
  }

  /** Everything up to here has been delivered. */
  synchronized long sequence() {
    return sequence;
  }

  /** The database that sequence counts in: another one is refused, not followed by mistake. */
  synchronized String epoch() {
    return epoch;
  }

  /** How many subscriptions have started so far. */
  synchronized int connections() {
    return connections;
  }

  synchronized SubscribeRequest request() {
    return SubscribeRequest.newBuilder().setAfterSequence(sequence).setEpoch(epoch).build();
  }

  /** Takes the next event. Returns the message to deliver, if it brings one. */
  synchronized Optional<Message> accept(SubscribeResponse event) {
    switch (event.getEventCase()) {
      case STARTED:
        expect(event.getStarted().getAfterSequence());
        epoch = event.getStarted().getEpoch();
        connections++;
        return Optional.empty();
      case MESSAGE:
        Message message = event.getMessage();
        if (message.getSequence() <= sequence) {
          return Optional.empty(); // A duplicate.
        }
        expect(message.getSequence() - 1);
        sequence = message.getSequence();
        return Optional.of(message);
      case CAUGHT_UP:
        expect(event.getCaughtUp().getThroughSequence());
        return Optional.empty();
      case HEARTBEAT:
        expect(event.getHeartbeat().getThroughSequence());
        return Optional.empty();
      default: // From a newer contract, which asks to ignore it.
        return Optional.empty();
    }
  }

  /**
   * Everything up to {@code through} has been delivered, the server says. That is so, as long as
   * everything is followed; with received_only, {@code through} would be the new position.
   */
  private void expect(long through) {
    if (through > sequence) {
      // The server promises not to leave out an entry: better to stop than to lose it.
      throw new IllegalStateException(
          "delivered up to " + sequence + ", and the server goes on after " + through);
    }
  }
}
