#include "peer.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <utility>

#include <google/protobuf/util/time_util.h>

#include "google/rpc/status.pb.h"

namespace peerpost_client {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

namespace {

// How long one attempt of a call may take, and how long a call is attempted again.
constexpr auto kCallTimeout = 10s;
constexpr auto kRetryFor = 60s;
// The wait between two attempts doubles from the first to the last.
constexpr Milliseconds kDelayMin = 100ms;
constexpr Milliseconds kDelayMax = 5s;

// Whether the same call can succeed later: the server is not there, or refused for now. Whether a
// send was stored is then unknown, and its request_id makes repeating it harmless.
bool IsRetriable(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return true;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return Explain(status).retry_delay.has_value();
    default:
      return false;
  }
}

// Waits that double, with jitter: clients that failed together do not come back together.
class Backoff {
 public:
  // Something worked: the next failure starts again from the shortest wait.
  void Reset() { step_ = kDelayMin; }

  // Waits after a failure, at least as long as the server asks for, or until a stop is requested.
  void Wait(const grpc::Status& status, const std::stop_token& stop) {
    std::uniform_real_distribution<> jitter(0.5, 1.0);
    const auto own = std::chrono::duration_cast<Milliseconds>(step_ * jitter(random_));
    const auto delay = std::max(own, Explain(status).retry_delay.value_or(0ms));
    step_ = std::min(step_ * 2, kDelayMax);
    std::mutex mutex;
    std::unique_lock lock(mutex);
    std::condition_variable_any().wait_for(lock, stop, delay, [] { return false; });
  }

 private:
  Milliseconds step_ = kDelayMin;
  std::mt19937 random_{std::random_device{}()};
};

}  // namespace

Refusal Explain(const grpc::Status& status) {
  Refusal refusal;
  google::rpc::Status rich;
  rich.ParseFromString(status.error_details());
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad;
  google::rpc::RetryInfo retry;
  for (const auto& detail : rich.details()) {
    if (detail.UnpackTo(&info)) {
      refusal.reason = info.reason();
    } else if (detail.UnpackTo(&bad)) {
      refusal.fields.assign(bad.field_violations().begin(), bad.field_violations().end());
    } else if (detail.UnpackTo(&retry)) {
      refusal.retry_delay = Milliseconds(
          google::protobuf::util::TimeUtil::DurationToMilliseconds(retry.retry_delay()));
    }
  }
  return refusal;
}

RpcError::RpcError(const grpc::Status& status)
    : runtime_error(status.error_message()), code(status.error_code()), refusal(Explain(status)) {}

bool Position::Accept(const pb::SubscribeResponse& response) {
  switch (response.event_case()) {
    case pb::SubscribeResponse::kStarted:
      Expect(response.started().after_sequence());
      epoch = response.started().epoch();
      ++connections;
      return false;
    case pb::SubscribeResponse::kMessage:
      if (response.message().sequence() <= sequence) return false;  // A duplicate.
      Expect(response.message().sequence() - 1);
      sequence = response.message().sequence();
      return true;
    case pb::SubscribeResponse::kCaughtUp:
      Expect(response.caught_up().through_sequence());
      return false;
    case pb::SubscribeResponse::kHeartbeat:
      Expect(response.heartbeat().through_sequence());
      return false;
    default:  // From a newer contract, which asks to ignore it.
      return false;
  }
}

// Everything up to `through` has been delivered, the server says. That is so, as long as everything
// is followed; with received_only, `through` would be the new position.
void Position::Expect(int64_t through) const {
  if (through > sequence) {
    throw HoleError("delivered up to " + std::to_string(sequence) + ", and the server goes on after " +
                    std::to_string(through));
  }
}

std::shared_ptr<grpc::Channel> Connect(const std::string& server) {
  grpc::ChannelArguments arguments;
  // A machine that vanished sends no goodbye: ask it every 20 seconds whether it is still there.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // gRPC's own wait before it connects again grows to two minutes unless it is told otherwise.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kDelayMin.count());
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kDelayMax.count());
  // Behind TLS: grpc::SslCredentials({}).
  return grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
}

Peer::Peer(const std::shared_ptr<grpc::Channel>& channel, std::string token)
    : stub_(pb::MessagingService::NewStub(channel)), token_(std::move(token)) {}

Peer Peer::Register(const std::shared_ptr<grpc::Channel>& channel, const std::string& username) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  pb::RegisterRequest request;
  request.set_username(username);
  pb::RegisterResponse response;
  const auto status = pb::MessagingService::NewStub(channel)->Register(&context, request, &response);
  if (!status.ok()) throw RpcError(status);
  return Peer(channel, response.token());
}

pb::Message Peer::Send(const std::string& to_user, const std::string& text,
                       const std::string& request_id) {
  pb::SendMessageRequest request;
  request.set_to_user(to_user);
  request.set_text(text);
  request.set_request_id(request_id);
  Backoff backoff;
  const auto give_up = Clock::now() + kRetryFor;
  while (true) {
    grpc::ClientContext context;  // Of one call: a context cannot be used again.
    Prepare(context);
    context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
    pb::SendMessageResponse response;
    const auto status = stub_->SendMessage(&context, request, &response);
    if (status.ok()) return response.message();
    if (!IsRetriable(status) || Clock::now() > give_up) throw RpcError(status);
    backoff.Wait(status, {});
  }
}

void Peer::Follow(Position& position, std::stop_token stop,
                  const std::function<void(const pb::Message&)>& handle) {
  Backoff backoff;
  while (!stop.stop_requested()) {
    grpc::ClientContext context;
    Prepare(context);
    pb::SubscribeRequest request;
    request.set_after_sequence(position.sequence);
    request.set_epoch(position.epoch);
    const auto events = stub_->Subscribe(&context, request);
    // A context that goes while its call is open must cancel it, also when handle throws. And
    // cancelling is what wakes a Read that waits.
    const std::shared_ptr<void> leaving(nullptr, [&](void*) { context.TryCancel(); });
    const std::stop_callback stopping(stop, [&] { context.TryCancel(); });

    pb::SubscribeResponse response;
    while (events->Read(&response)) {
      const bool delivers = position.Accept(response);
      // A server that accepts and then fails is left in peace: `started` is no progress.
      if (!response.has_started()) backoff.Reset();
      if (delivers) handle(response.message());
    }
    const auto status = events->Finish();
    if (stop.stop_requested()) return;
    // The server ends a stream with an error; an end without one is as good as a broken connection.
    if (!status.ok() && !IsRetriable(status)) throw RpcError(status);
    backoff.Wait(status, stop);
  }
}

void Peer::Prepare(grpc::ClientContext& context) const {
  // Credentials for single calls need TLS in gRPC, so the token goes into the metadata as it is.
  context.AddMetadata("authorization", "Bearer " + token_);
  // A channel connects only while a call waits for it, or every five seconds. Calls that fail at once
  // while the server is away would find it late.
  context.set_wait_for_ready(true);
}

}  // namespace peerpost_client
