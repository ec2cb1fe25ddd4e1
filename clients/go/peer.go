package main

import (
	"context"
	"io"
	"math/rand"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "peerpost/v1"
)

const (
	// How long one attempt of a call may take, and how long a call is attempted again.
	callTimeout = 10 * time.Second
	retryFor    = 60 * time.Second
	// The wait between two attempts doubles from the first to the last.
	delayMin = 100 * time.Millisecond
	delayMax = 5 * time.Second
)

// Dial returns a connection for everybody in the program. Behind TLS:
// grpc.WithTransportCredentials(credentials.NewTLS(nil)) instead of WithInsecure. (In newer versions
// of grpc-go: grpc.NewClient, and insecure.NewCredentials().)
func Dial(server string) (*grpc.ClientConn, error) {
	reconnect := backoff.DefaultConfig // which would wait for up to two minutes
	reconnect.BaseDelay, reconnect.MaxDelay = delayMin, delayMax
	return grpc.Dial(server,
		grpc.WithInsecure(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: delayMax}),
		// A machine that vanished sends no goodbye: ask it whether it is still there.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	)
}

// Peer is a user, by the token that registering gave out.
type Peer struct {
	Token  string
	client pb.MessagingServiceClient
}

// Register takes a new name. Keep the peer's Token: it is shown this once. For the same reason this
// is not attempted again: if the answer is lost, so is the name.
func Register(ctx context.Context, conn *grpc.ClientConn, username string) (*Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client := pb.NewMessagingServiceClient(conn)
	response, err := client.Register(ctx, &pb.RegisterRequest{Username: username})
	if err != nil {
		return nil, err
	}
	return &Peer{Token: response.Token, client: client}, nil
}

// Send returns once the message is on disk, attempting it again while the server cannot be reached.
// With the same requestID it is stored once, however often it is sent.
func (p *Peer) Send(ctx context.Context, toUser, text, requestID string) (*pb.Message, error) {
	request := &pb.SendMessageRequest{
		ToUser:    toUser,
		Body:      &pb.SendMessageRequest_Text{Text: text},
		RequestId: requestID,
	}
	ctx, cancel := context.WithTimeout(ctx, retryFor)
	defer cancel()
	for delay := delayMin; ; delay = next(delay) {
		message, err := p.sendOnce(ctx, request)
		if err == nil || !isRetriable(err) || pause(ctx, delay, err) != nil {
			return message, err
		}
	}
}

func (p *Peer) sendOnce(ctx context.Context, request *pb.SendMessageRequest) (*pb.Message, error) {
	ctx, cancel := context.WithTimeout(p.authorized(ctx), callTimeout)
	defer cancel()
	response, err := p.client.SendMessage(ctx, request)
	return response.GetMessage(), err
}

// Follow puts every entry of the mailbox after position into messages, through history into live
// delivery, each once and in order, connecting again for as long as it takes. It returns when ctx is
// done, or with an error that connecting again does not mend.
func (p *Peer) Follow(ctx context.Context, position *Position, messages chan<- *pb.Message) error {
	delay := delayMin
	for {
		progress, err := p.followOnce(ctx, position, messages)
		if progress {
			delay = delayMin
		}
		if err != io.EOF && !isRetriable(err) {
			return err
		}
		if err := pause(ctx, delay, err); err != nil {
			return err
		}
		delay = next(delay)
	}
}

// followOnce follows until the stream ends, and tells whether more came than `started`: a server that
// accepts and then fails is left in peace.
func (p *Peer) followOnce(ctx context.Context, position *Position, messages chan<- *pb.Message) (progress bool, err error) {
	// Cancelling is what ends a stream that is left before its end.
	ctx, cancel := context.WithCancel(p.authorized(ctx))
	defer cancel()
	events, err := p.client.Subscribe(ctx, position.request())
	if err != nil {
		return false, err
	}
	for {
		event, err := events.Recv()
		if err != nil {
			return progress, err
		}
		message, err := position.accept(event)
		if err != nil {
			return progress, err
		}
		progress = progress || event.GetStarted() == nil
		if message == nil {
			continue
		}
		select {
		case messages <- message:
		case <-ctx.Done():
			return progress, ctx.Err()
		}
	}
}

func (p *Peer) authorized(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.Token)
}

// Refusal is what an error says beside its status: google.rpc's ErrorInfo, BadRequest and RetryInfo.
type Refusal struct {
	// A name out of error_reason.proto. Empty when the error is not the server's own.
	Reason string
	// The request's fields that were wrong, and what each may hold.
	Fields []*errdetails.BadRequest_FieldViolation
	// How long the server asks to be left alone; nil if it does not.
	RetryDelay *time.Duration
}

// Explain reads the details of an error of gRPC.
func Explain(err error) (refusal Refusal) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			refusal.Reason = detail.Reason
		case *errdetails.BadRequest:
			refusal.Fields = detail.FieldViolations
		case *errdetails.RetryInfo:
			delay := detail.RetryDelay.AsDuration()
			refusal.RetryDelay = &delay
		}
	}
	return refusal
}

// isRetriable tells whether the same call can succeed later: the server is not there, or refused for
// now. Whether a send was stored is then unknown, and its request id makes repeating it harmless.
func isRetriable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	case codes.ResourceExhausted:
		return Explain(err).RetryDelay != nil
	default:
		return false
	}
}

// pause waits before the next attempt: at least as long as the server asks for, and with jitter, so
// that clients that failed together do not come back together.
func pause(ctx context.Context, delay time.Duration, err error) error {
	delay = delay/2 + time.Duration(rand.Int63n(int64(delay/2)))
	if asked := Explain(err).RetryDelay; asked != nil && *asked > delay {
		delay = *asked
	}
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func next(delay time.Duration) time.Duration {
	if delay *= 2; delay < delayMax {
		return delay
	}
	return delayMax
}
