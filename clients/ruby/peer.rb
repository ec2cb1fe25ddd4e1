# frozen_string_literal: true

$LOAD_PATH.unshift("#{__dir__}/lib")
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'grpc'
require 'peerpost/v1/messaging_services_pb'

# The server left out an entry, which it promises not to: better to stop than to lose it.
class HoleError < StandardError; end

# Where a follower stands in its mailbox. To go on after a restart of your own program, store
# `sequence` and `epoch` together with what you did with the message, and begin with them.
class Position
  # Everything up to here has been delivered.
  attr_reader :sequence
  # The database that `sequence` counts in: another one is refused, not followed by mistake.
  attr_reader :epoch
  # How many subscriptions have started so far.
  attr_reader :connections

  def initialize(sequence: 0, epoch: '')
    @sequence = sequence
    @epoch = epoch
    @connections = 0
  end

  def request
    Peerpost::V1::SubscribeRequest.new(after_sequence: sequence, epoch: epoch)
  end

  # Takes the next event. Returns the message to deliver, if it brings one.
  def accept(response)
    case response.event
    when :started
      expect(response.started.after_sequence)
      @epoch = response.started.epoch
      @connections += 1
    when :message
      message = response.message
      return if message.sequence <= sequence # A duplicate.

      expect(message.sequence - 1)
      @sequence = message.sequence
      return message
    when :caught_up then expect(response.caught_up.through_sequence)
    when :heartbeat then expect(response.heartbeat.through_sequence)
    end
    nil # Anything else comes from a newer contract, which asks to be ignored.
  end

  private

  # Everything up to `through` has been delivered, the server says. That is so, as long as everything
  # is followed; with received_only, `through` would be the new position.
  def expect(through)
    return if through <= sequence

    raise HoleError, "delivered up to #{sequence}, and the server goes on after #{through}"
  end
end

# What an error says beside its status: google.rpc's ErrorInfo, BadRequest and RetryInfo.
#
# reason:        a name out of error_reason.proto; nil when the error is not the server's own
# fields:        the request's fields that were wrong, and what each may hold
# retry_delay_s: how long the server asks to be left alone, or nil
Refusal = Struct.new(:reason, :fields, :retry_delay_s, keyword_init: true) do
  def self.of(error)
    refusal = new(fields: {})
    error.to_rpc_status&.details.to_a.each do |detail|
      if (info = detail.unpack(Google::Rpc::ErrorInfo))
        refusal.reason = info.reason
      elsif (bad = detail.unpack(Google::Rpc::BadRequest))
        refusal.fields = bad.field_violations.to_h { |it| [it.field, it.description] }
      elsif (retry_info = detail.unpack(Google::Rpc::RetryInfo))
        refusal.retry_delay_s = retry_info.retry_delay.to_f
      end
    end
    refusal
  end
end

# Waits that double, with jitter: clients that failed together do not come back together.
class Backoff
  DELAY_MIN_S = 0.1
  DELAY_MAX_S = 5

  def initialize
    reset
  end

  # Something worked: the next failure starts again from the shortest wait.
  def reset
    @step_s = DELAY_MIN_S
  end

  # Waits after this failure, at least as long as the server asks for.
  def wait(error)
    own_s = @step_s * rand(0.5..1.0)
    @step_s = [@step_s * 2, DELAY_MAX_S].min
    sleep [own_s, Refusal.of(error).retry_delay_s || 0].max
  end
end

# A peerpost client: one user, who sends and follows their mailbox.
class Peer
  # How long one attempt of a call may take, and how long a call is attempted again.
  CALL_TIMEOUT_S = 10
  RETRY_FOR_S = 60

  CHANNEL_ARGS = {
    # A machine that vanished sends no goodbye: ask it every 20 seconds whether it is still there.
    'grpc.keepalive_time_ms' => 20_000,
    'grpc.keepalive_timeout_ms' => 10_000,
    # gRPC's own wait before it connects again grows to two minutes unless it is told otherwise.
    'grpc.initial_reconnect_backoff_ms' => 100,
    'grpc.max_reconnect_backoff_ms' => 5_000
  }.freeze

  # A stub for everybody in the program, from any thread. Behind TLS:
  # GRPC::Core::ChannelCredentials.new instead of :this_channel_is_insecure.
  def self.connect(server)
    Peerpost::V1::MessagingService::Stub.new(
      server, :this_channel_is_insecure, channel_args: CHANNEL_ARGS
    )
  end

  # Takes a new name. Keep the peer's token: it is shown this once. For the same reason this is not
  # attempted again: if the answer is lost, so is the name.
  def self.register(stub, username)
    request = Peerpost::V1::RegisterRequest.new(username: username)
    new(stub, stub.register(request, deadline: Time.now + CALL_TIMEOUT_S).token)
  end

  attr_reader :token

  # A user, by the token that registering gave out.
  def initialize(stub, token)
    @stub = stub
    @token = token
    @metadata = { 'authorization' => "Bearer #{token}" }
  end

  # Returns once the message is on disk, attempting it again while the server cannot be reached. With
  # the same request_id it is stored once, however often it is sent.
  def send_text(to_user, text, request_id:)
    request = Peerpost::V1::SendMessageRequest.new(
      to_user: to_user, text: text, request_id: request_id
    )
    backoff = Backoff.new
    give_up = now_s + RETRY_FOR_S
    begin
      @stub.send_message(request, deadline: Time.now + CALL_TIMEOUT_S, metadata: @metadata).message
    rescue GRPC::BadStatus => e
      raise if !retriable?(e) || now_s > give_up

      backoff.wait(e)
      retry
    end
  end

  # Yields every entry of the mailbox after `position`, through history into live delivery, each once
  # and in order, connecting again for as long as it takes. Leaving the block ends the subscription;
  # what connecting again does not mend is raised. Without a block: an Enumerator.
  def follow(position, &block)
    return enum_for(:follow, position) unless block

    backoff = Backoff.new
    loop do
      follow_once(position, backoff, &block)
      raise GRPC::Unavailable, 'the stream ended'
    rescue GRPC::BadStatus => e
      raise unless retriable?(e)

      backoff.wait(e)
    end
  end

  private

  def follow_once(position, backoff)
    call = @stub.subscribe(position.request, metadata: @metadata, return_op: true)
    call.execute.each do |event|
      message = position.accept(event)
      # A server that accepts and then fails is left in peace: `started` is no progress.
      backoff.reset unless event.event == :started
      yield message if message
    end
  ensure
    call&.cancel
  end

  # Whether the same call can succeed later: the server is not there, or refused for now. Whether a
  # send was stored is then unknown, and its request_id makes repeating it harmless.
  def retriable?(error)
    case error
    when GRPC::Unavailable, GRPC::DeadlineExceeded then true
    when GRPC::ResourceExhausted then !Refusal.of(error).retry_delay_s.nil?
    else false
    end
  end

  def now_s
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
