package main

import (
	"fmt"

	pb "peerpost/v1"
)

// Position is where a follower stands in its mailbox. To go on after a restart of your own program,
// store Sequence and Epoch together with what you did with the message, and begin with them.
type Position struct {
	// Everything up to here has been delivered.
	Sequence int64
	// The database that Sequence counts in: another one is refused, not followed by mistake.
	Epoch string
	// How many subscriptions have started so far.
	Connections int
}

func (p *Position) request() *pb.SubscribeRequest {
	return &pb.SubscribeRequest{
		Start: &pb.SubscribeRequest_AfterSequence{AfterSequence: p.Sequence},
		Epoch: p.Epoch,
	}
}

// accept takes the next event, and returns the message to deliver, if it brings one.
func (p *Position) accept(response *pb.SubscribeResponse) (*pb.Message, error) {
	switch event := response.Event.(type) {
	case *pb.SubscribeResponse_Started:
		p.Epoch = event.Started.Epoch
		p.Connections++
		return nil, p.expect(event.Started.AfterSequence)
	case *pb.SubscribeResponse_Message:
		message := event.Message
		if message.Sequence <= p.Sequence {
			return nil, nil // A duplicate.
		}
		if err := p.expect(message.Sequence - 1); err != nil {
			return nil, err
		}
		p.Sequence = message.Sequence
		return message, nil
	case *pb.SubscribeResponse_CaughtUp:
		return nil, p.expect(event.CaughtUp.ThroughSequence)
	case *pb.SubscribeResponse_Heartbeat:
		return nil, p.expect(event.Heartbeat.ThroughSequence)
	default: // From a newer contract, which asks to ignore it.
		return nil, nil
	}
}

// expect fails if the server left out an entry, which it promises not to: everything up to through
// has been delivered, it says. (With ReceivedOnly, through would be the new position.)
func (p *Position) expect(through int64) error {
	if through > p.Sequence {
		return fmt.Errorf("delivered up to %d, and the server goes on after %d", p.Sequence, through)
	}
	return nil
}
