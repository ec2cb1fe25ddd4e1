// Two peers, messages between them, and proof that each arrived once and in order: see ../README.md.
#include <chrono>
#include <future>
#include <iostream>
#include <random>
#include <sstream>
#include <thread>

#include "peer.h"

using namespace peerpost_client;

namespace {

// How long what was sent may be on its way, a restart of the server included.
constexpr auto kArrivesWithin = std::chrono::seconds(60);

void Check(bool holds, const std::string& otherwise) {
  if (!holds) throw std::runtime_error(otherwise);
}

// Prints what the server says to a name that can be none: the reason, and the field that is wrong.
void ShowRefusal(Peer& alice) {
  try {
    alice.Send("no such name!", "hello", "refused");
  } catch (const RpcError& error) {
    std::cout << "refused " << error.refusal.reason;
    for (const auto& violation : error.refusal.fields) std::cout << ' ' << violation.field();
    std::cout << std::endl;
    return;
  }
  throw std::runtime_error("a malformed name was accepted");
}

// Follows until `count` messages have come, and fails unless they are 1, 2, 3, …
void Receive(Peer& bob, Position& position, int count, std::stop_token stop) {
  std::stop_source enough;
  const std::stop_callback stopping(stop, [&] { enough.request_stop(); });
  int number = 0;
  bob.Follow(position, enough.get_token(), [&](const pb::Message& message) {
    ++number;
    Check(message.sequence() == number && message.text() == std::to_string(number),
          "instead of " + std::to_string(number) + " came " + message.text() + " as " +
              std::to_string(message.sequence()));
    if (number == count) enough.request_stop();
  });
  Check(number == count, "only " + std::to_string(number) + " came");
}

void SendAll(Peer& alice, const std::string& bob_name, int count) {
  for (int number = 1; number <= count; ++number) {
    const auto text = std::to_string(number);
    const auto sent = alice.Send(bob_name, text, "number-" + text);
    // Her own mailbox is numbered without a hole too: nothing was stored twice.
    Check(sent.sequence() == number,
          "message " + text + " was stored as " + std::to_string(sent.sequence()));
    if (number % (count / 4) == 0) std::cout << "sent " << number << std::endl;
  }
  // As after an answer that was lost: what has this request_id is there already.
  const auto last = std::to_string(count);
  const auto repeated = alice.Send(bob_name, last, "number-" + last);
  Check(repeated.sequence() == count,
        "message " + last + " was stored again, as " + std::to_string(repeated.sequence()));
}

void Run(const std::string& server, int count) {
  std::ostringstream suffix;
  suffix << std::hex << std::random_device{}();
  const auto alice_name = "alice-cpp-" + suffix.str(), bob_name = "bob-cpp-" + suffix.str();
  const auto channel = Connect(server);
  Peer alice = Peer::Register(channel, alice_name);
  Peer bob = Peer::Register(channel, bob_name);
  std::cout << "registered " << alice_name << ' ' << bob_name << std::endl;

  ShowRefusal(alice);

  Position position;
  std::packaged_task<void(std::stop_token)> receive(
      [&](std::stop_token stop) { Receive(bob, position, count, stop); });
  auto received = receive.get_future();
  // Leaving this function, also by an exception, stops the thread and waits for it.
  const std::jthread following([&](std::stop_token stop) { receive(stop); });
  SendAll(alice, bob_name, count);
  Check(received.wait_for(kArrivesWithin) == std::future_status::ready, "not everything came");
  received.get();

  std::cout << "ok cpp: " << count << " messages, each once and in order; reconnected "
            << position.connections - 1 << " times" << std::endl;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) throw std::runtime_error("usage: main SERVER COUNT");
  Run(argv[1], std::stoi(argv[2]));
} catch (const std::exception& error) {
  std::cerr << error.what() << std::endl;
  return 1;
}
