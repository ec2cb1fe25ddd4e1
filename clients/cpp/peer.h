// A peerpost client: one user, who sends and follows their mailbox.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "peerpost/v1/messaging.grpc.pb.h"

namespace peerpost_client {

namespace pb = peerpost::v1;

// What an error says beside its status: google.rpc's ErrorInfo, BadRequest and RetryInfo.
struct Refusal {
  // A name out of error_reason.proto. Empty when the error is not the server's own.
  std::string reason;
  // The request's fields that were wrong, and what each may hold.
  std::vector<google::rpc::BadRequest::FieldViolation> fields;
  // How long the server asks to be left alone.
  std::optional<std::chrono::milliseconds> retry_delay;
};

Refusal Explain(const grpc::Status& status);

// A call that failed, and that repeating it did not mend.
struct RpcError : std::runtime_error {
  explicit RpcError(const grpc::Status& status);
  grpc::StatusCode code;
  Refusal refusal;
};

// The server left out an entry, which it promises not to: better to stop than to lose it.
struct HoleError : std::runtime_error {
  using runtime_error::runtime_error;
};

// Where a follower stands in its mailbox. To go on after a restart of your own program, store
// `sequence` and `epoch` together with what you did with the message, and begin with them.
struct Position {
  // Everything up to here has been delivered.
  int64_t sequence = 0;
  // The database that `sequence` counts in: another one is refused, not followed by mistake.
  std::string epoch;
  // How many subscriptions have started so far.
  int connections = 0;

  // Takes the next event. Returns whether it brings a message to deliver.
  bool Accept(const pb::SubscribeResponse& response);

 private:
  void Expect(int64_t through) const;
};

// A channel for everybody in the program, from any thread.
std::shared_ptr<grpc::Channel> Connect(const std::string& server);

// A user, by the token that registering gave out.
class Peer {
 public:
  Peer(const std::shared_ptr<grpc::Channel>& channel, std::string token);

  // Takes a new name. Keep the peer's token: it is shown this once. For the same reason this is not
  // attempted again: if the answer is lost, so is the name.
  static Peer Register(const std::shared_ptr<grpc::Channel>& channel, const std::string& username);

  const std::string& token() const { return token_; }

  // Returns once the message is on disk, attempting it again while the server cannot be reached.
  // With the same request_id it is stored once, however often it is sent.
  pb::Message Send(const std::string& to_user, const std::string& text,
                   const std::string& request_id);

  // Hands over every entry of the mailbox after `position`, through history into live delivery, each
  // once and in order, connecting again for as long as it takes. Returns when a stop is requested;
  // throws what connecting again does not mend.
  void Follow(Position& position, std::stop_token stop,
              const std::function<void(const pb::Message&)>& handle);

 private:
  void Prepare(grpc::ClientContext& context) const;

  std::unique_ptr<pb::MessagingService::Stub> stub_;
  std::string token_;
};

}  // namespace peerpost_client
