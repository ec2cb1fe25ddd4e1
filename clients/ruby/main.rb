# frozen_string_literal: true

# Two peers, messages between them, and proof that each arrived once and in order: see ../README.md.

require 'securerandom'
require_relative 'peer'

# How long what was sent may be on its way, a restart of the server included.
ARRIVES_WITHIN_S = 60

def main(server, count)
  stub = Peer.connect(server)
  suffix = SecureRandom.hex(4)
  alice_name = "alice-ruby-#{suffix}"
  bob_name = "bob-ruby-#{suffix}"
  alice = Peer.register(stub, alice_name)
  bob = Peer.register(stub, bob_name)
  puts "registered #{alice_name} #{bob_name}"

  show_refusal(alice)

  position = Position.new
  following = Thread.new { receive(bob, position, count) }
  following.abort_on_exception = true # What fails there fails here.
  (1..count).each do |number|
    sent = alice.send_text(bob_name, number.to_s, request_id: "number-#{number}")
    # Her own mailbox is numbered without a hole too: nothing was stored twice.
    raise "message #{number} was stored as #{sent.sequence}" if sent.sequence != number

    puts "sent #{number}" if (number % (count / 4)).zero?
  end
  # As after an answer that was lost: what has this request_id is there already.
  repeated = alice.send_text(bob_name, count.to_s, request_id: "number-#{count}")
  raise "message #{count} was stored again, as #{repeated.sequence}" if repeated.sequence != count

  raise 'not everything came' unless following.join(ARRIVES_WITHIN_S)

  puts "ok ruby: #{count} messages, each once and in order; " \
       "reconnected #{position.connections - 1} times"
end

# Prints what the server says to a name that can be none: the reason, and the field that is wrong.
def show_refusal(alice)
  alice.send_text('no such name!', 'hello', request_id: 'refused')
  raise 'a malformed name was accepted'
rescue GRPC::BadStatus => e
  refusal = Refusal.of(e)
  puts ['refused', refusal.reason, *refusal.fields.keys].join(' ')
end

# Follows until `count` messages have come, and fails unless they are 1, 2, 3, …
def receive(bob, position, count)
  number = 0
  bob.follow(position) do |message|
    number += 1
    if message.sequence != number || message.text != number.to_s
      raise "instead of #{number} came #{message.text} as #{message.sequence}"
    end
    break if number == count
  end
end

$stdout.sync = true
main(ARGV[0], Integer(ARGV[1]))
