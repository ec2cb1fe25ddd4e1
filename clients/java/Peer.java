import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import io.peerpost.v1.Message;
import io.peerpost.v1.MessagingServiceGrpc;
import io.peerpost.v1.MessagingServiceGrpc.MessagingServiceBlockingStub;
import io.peerpost.v1.RegisterRequest;
import io.peerpost.v1.SendMessageRequest;
import io.peerpost.v1.SubscribeResponse;
import java.time.Duration;
import java.time.Instant;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;

/** A peerpost client: one user, who sends and follows their mailbox. */
final class Peer {
  /** How long one attempt of a call may take. */
  private static final long CALL_TIMEOUT_S = 10;

  /** How long a call is attempted again. */
  private static final Duration RETRY_FOR = Duration.ofSeconds(60);

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final ManagedChannel channel;
  private final String token;
  private final MessagingServiceBlockingStub stub;

  /** A user, by the token that registering gave out. */
  Peer(ManagedChannel channel, String token) {
    this.channel = channel;
    this.token = token;
    Metadata metadata = new Metadata();
    metadata.put(AUTHORIZATION, "Bearer " + token);
    this.stub =
        MessagingServiceGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
  }

  /** A channel for everybody in the program, from any thread. Behind TLS: without usePlaintext. */
  static ManagedChannel connect(String server) {
    return ManagedChannelBuilder.forTarget(server)
        .usePlaintext()
        // A machine that vanished sends no goodbye: ask it whether it is still there.
        .keepAliveTime(20, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .build();
  }

  /**
   * Takes a new name. Keep the peer's token: it is shown this once. For the same reason this is not
   * attempted again: if the answer is lost, so is the name.
   */
  static Peer register(ManagedChannel channel, String username) {
    var request = RegisterRequest.newBuilder().setUsername(username).build();
    var response =
        MessagingServiceGrpc.newBlockingStub(channel)
            .withDeadlineAfter(CALL_TIMEOUT_S, TimeUnit.SECONDS)
            .register(request);
    return new Peer(channel, response.getToken());
  }

  String token() {
    return token;
  }

  /**
   * Returns once the message is on disk, attempting it again while the server cannot be reached. With
   * the same requestId it is stored once, however often it is sent.
   */
  Message send(String toUser, String text, String requestId) throws InterruptedException {
    var request =
        SendMessageRequest.newBuilder()
            .setToUser(toUser)
            .setText(text)
            .setRequestId(requestId)
            .build();
    Backoff backoff = new Backoff();
    Instant giveUp = Instant.now().plus(RETRY_FOR);
    while (true) {
      try {
        return stub.withDeadlineAfter(CALL_TIMEOUT_S, TimeUnit.SECONDS)
            .sendMessage(request)
            .getMessage();
      } catch (StatusRuntimeException error) {
        if (!Backoff.isRetriable(error) || Instant.now().isAfter(giveUp)) {
          throw error;
        }
        pause(backoff, error);
      }
    }
  }

  /**
   * Hands over every entry of the mailbox after the position, through history into live delivery,
   * each once and in order, connecting again for as long as it takes, until {@code handle} returns
   * false or the thread is interrupted. Throws what connecting again does not mend.
   */
  void follow(Position position, Predicate<Message> handle) throws InterruptedException {
    Backoff backoff = new Backoff();
    while (true) {
      StatusRuntimeException broken;
      try {
        if (!followOnce(position, handle, backoff)) {
          return;
        }
        broken = Status.UNAVAILABLE.withDescription("the stream ended").asRuntimeException();
      } catch (StatusRuntimeException error) {
        broken = error;
      }
      if (Thread.currentThread().isInterrupted()) {
        throw new InterruptedException();
      }
      if (!Backoff.isRetriable(broken)) {
        throw broken;
      }
      pause(backoff, broken);
    }
  }

  /** Follows until the stream ends. Returns whether to go on. */
  private boolean followOnce(Position position, Predicate<Message> handle, Backoff backoff) {
    // Cancelling the context is what ends a stream that is left before its end.
    Context.CancellableContext context = Context.current().withCancellation();
    Context outer = context.attach();
    try {
      var events = stub.subscribe(position.request());
      while (events.hasNext()) {
        SubscribeResponse event = events.next();
        var message = position.accept(event);
        // A server that accepts and then fails is left in peace: `started` is no progress.
        if (!event.hasStarted()) {
          backoff.reset();
        }
        if (message.isPresent() && !handle.test(message.get())) {
          return false;
        }
      }
      return true;
    } finally {
      context.detachAndCancel(outer, null);
    }
  }

  /** Waits, and has the channel try at once: its own waits grow to two minutes. */
  private void pause(Backoff backoff, StatusRuntimeException error) throws InterruptedException {
    backoff.await(error);
    channel.resetConnectBackoff();
  }
}
