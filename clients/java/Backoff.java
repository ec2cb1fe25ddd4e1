import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** Waits that double, with jitter: clients that failed together do not come back together. */
final class Backoff {
  private static final Duration DELAY_MIN = Duration.ofMillis(100);
  private static final Duration DELAY_MAX = Duration.ofSeconds(5);

  private Duration step = DELAY_MIN;

  /** Something worked: the next failure starts again from the shortest wait. */
  void reset() {
    step = DELAY_MIN;
  }

  /** Waits after this failure, at least as long as the server asks for. */
  void await(StatusRuntimeException error) throws InterruptedException {
    long own = (long) (step.toMillis() * ThreadLocalRandom.current().nextDouble(0.5, 1));
    long asked = Refusal.of(error).retryDelay().orElse(Duration.ZERO).toMillis();
    step = step.compareTo(DELAY_MAX.dividedBy(2)) < 0 ? step.multipliedBy(2) : DELAY_MAX;
    Thread.sleep(Math.max(own, asked));
  }

  /**
   * Whether the same call can succeed later: the server is not there, or refused for now. Whether a
   * send was stored is then unknown, and its request_id makes repeating it harmless.
   */
  static boolean isRetriable(StatusRuntimeException error) {
    return switch (error.getStatus().getCode()) {
      case UNAVAILABLE, DEADLINE_EXCEEDED -> true;
      // How gRPC for Java reports a write to a connection that has just broken.
      case UNKNOWN -> error.getStatus().getCause() instanceof IOException;
      case RESOURCE_EXHAUSTED -> Refusal.of(error).retryDelay().isPresent();
      default -> false;
    };
  }
}
