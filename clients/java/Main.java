import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.peerpost.v1.Message;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Two peers, messages between them, and proof that each arrived once and in order: see ../README.md.
 */
final class Main {
  /** How long what was sent may be on its way, a restart of the server included. */
  private static final long ARRIVES_WITHIN_S = 60;

  public static void main(String[] arguments) throws Exception {
    ManagedChannel channel = Peer.connect(arguments[0]);
    ExecutorService background = Executors.newSingleThreadExecutor();
    try {
      run(channel, background, Integer.parseInt(arguments[1]));
    } finally {
      background.shutdownNow(); // Interrupts what still follows.
      channel.shutdownNow();
    }
  }

  private static void run(ManagedChannel channel, ExecutorService background, int count)
      throws Exception {
    String suffix = Integer.toHexString(ThreadLocalRandom.current().nextInt());
    String aliceName = "alice-java-" + suffix;
    String bobName = "bob-java-" + suffix;
    Peer alice = Peer.register(channel, aliceName);
    Peer bob = Peer.register(channel, bobName);
    System.out.println("registered " + aliceName + " " + bobName);

    showRefusal(alice);

    Position position = new Position();
    Future<?> following = background.submit(() -> receive(bob, position, count));
    for (int number = 1; number <= count; number++) {
      Message sent = alice.send(bobName, Integer.toString(number), "number-" + number);
      // Her own mailbox is numbered without a hole too: nothing was stored twice.
      check(sent.getSequence() == number, "message " + number + " stored as " + sent.getSequence());
      if (number % (count / 4) == 0) {
        System.out.println("sent " + number);
      }
    }
    // As after an answer that was lost: what has this requestId is there already.
    Message repeated = alice.send(bobName, Integer.toString(count), "number-" + count);
    check(repeated.getSequence() == count, "stored again, as " + repeated.getSequence());
    following.get(ARRIVES_WITHIN_S, TimeUnit.SECONDS);

    System.out.printf(
        "ok java: %d messages, each once and in order; reconnected %d times%n",
        count, position.connections() - 1);
  }

  /** Prints what the server says to a name that can be none: the reason, and the field. */
  private static void showRefusal(Peer alice) throws InterruptedException {
    try {
      alice.send("no such name!", "hello", "refused");
    } catch (StatusRuntimeException error) {
      Refusal refusal = Refusal.of(error);
      System.out.print("refused " + refusal.reason());
      refusal.fields().forEach(violation -> System.out.print(" " + violation.getField()));
      System.out.println();
      return;
    }
    throw new IllegalStateException("a malformed name was accepted");
  }

  /** Follows until count messages have come, and fails unless they are 1, 2, 3, … */
  private static Void receive(Peer bob, Position position, int count) throws Exception {
    AtomicInteger received = new AtomicInteger();
    bob.follow(
        position,
        message -> {
          int number = received.incrementAndGet();
          check(
              message.getSequence() == number && message.getText().equals("" + number),
              "instead of %d came %s as %d"
                  .formatted(number, message.getText(), message.getSequence()));
          return number < count;
        });
    return null;
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }
}
