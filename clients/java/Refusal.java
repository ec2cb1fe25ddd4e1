import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * What an error says beside its status: google.rpc's ErrorInfo, BadRequest and RetryInfo.
 *
 * @param reason a name out of error_reason.proto; empty when the error is not the server's own
 * @param fields the request's fields that were wrong, and what each may hold
 * @param retryDelay how long the server asks to be left alone
 */
record Refusal(
    String reason, List<BadRequest.FieldViolation> fields, Optional<Duration> retryDelay) {

  static Refusal of(StatusRuntimeException error) {
    String reason = "";
    List<BadRequest.FieldViolation> fields = List.of();
    Optional<Duration> retryDelay = Optional.empty();
    Status status = StatusProto.fromThrowable(error);
    try {
      for (Any detail : status == null ? List.<Any>of() : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          fields = detail.unpack(BadRequest.class).getFieldViolationsList();
        } else if (detail.is(RetryInfo.class)) {
          var delay = detail.unpack(RetryInfo.class).getRetryDelay();
          retryDelay = Optional.of(Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
        }
      }
    } catch (InvalidProtocolBufferException damaged) {
      // An error without its details is still that error.
    }
    return new Refusal(reason, fields, retryDelay);
  }
}
