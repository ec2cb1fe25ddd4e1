// Two peers, messages between them, and proof that each arrived once and in order: see ../README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strconv"
	"time"

	pb "peerpost/v1"
)

// How long the next message may be on its way, a restart of the server included.
const arrivesWithin = 60 * time.Second

func main() {
	log.SetFlags(0)
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	rand.Seed(time.Now().UnixNano())
	if err := run(context.Background(), os.Args[1], count); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, server string, count int) error {
	// Returning ends what still runs in the background.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := Dial(server)
	if err != nil {
		return err
	}
	defer conn.Close()

	suffix := fmt.Sprintf("%08x", rand.Uint32())
	aliceName, bobName := "alice-go-"+suffix, "bob-go-"+suffix
	alice, err := Register(ctx, conn, aliceName)
	if err != nil {
		return err
	}
	bob, err := Register(ctx, conn, bobName)
	if err != nil {
		return err
	}
	fmt.Println("registered", aliceName, bobName)

	if err := showRefusal(ctx, alice); err != nil {
		return err
	}

	var position Position
	messages := make(chan *pb.Message)
	failed := make(chan error, 2) // one for each goroutine: neither waits for a reader that has left
	go func() { failed <- bob.Follow(ctx, &position, messages) }()
	allSent := make(chan struct{})
	go func() {
		if err := sendAll(ctx, alice, bobName, count); err != nil {
			failed <- err
		}
		close(allSent)
	}()

	for number := 1; number <= count; number++ {
		select {
		case message := <-messages:
			if message.Sequence != int64(number) || message.GetText() != strconv.Itoa(number) {
				return fmt.Errorf("instead of %d came %q as %d", number, message.GetText(), message.Sequence)
			}
		case err := <-failed:
			return err
		case <-time.After(arrivesWithin):
			return fmt.Errorf("message %d did not come", number)
		}
	}
	<-allSent
	cancel()
	<-failed // Follow has returned, so the position is no longer shared.
	fmt.Printf("ok go: %d messages, each once and in order; reconnected %d times\n",
		count, position.Connections-1)
	return nil
}

// showRefusal prints what the server says to a name that can be none: the reason, and the field.
func showRefusal(ctx context.Context, alice *Peer) error {
	_, err := alice.Send(ctx, "no such name!", "hello", "refused")
	if err == nil {
		return errors.New("a malformed name was accepted")
	}
	refusal := Explain(err)
	fmt.Print("refused ", refusal.Reason)
	for _, violation := range refusal.Fields {
		fmt.Print(" ", violation.Field)
	}
	fmt.Println()
	return nil
}

func sendAll(ctx context.Context, alice *Peer, bobName string, count int) error {
	for number := 1; number <= count; number++ {
		sent, err := alice.Send(ctx, bobName, strconv.Itoa(number), fmt.Sprintf("number-%d", number))
		if err != nil {
			return err
		}
		// Her own mailbox is numbered without a hole too: nothing was stored twice.
		if sent.Sequence != int64(number) {
			return fmt.Errorf("message %d was stored as %d", number, sent.Sequence)
		}
		if number%(count/4) == 0 {
			fmt.Println("sent", number)
		}
	}
	// As after an answer that was lost: what has this request id is there already.
	repeated, err := alice.Send(ctx, bobName, strconv.Itoa(count), fmt.Sprintf("number-%d", count))
	if err == nil && repeated.Sequence != int64(count) {
		err = fmt.Errorf("message %d was stored again, as %d", count, repeated.Sequence)
	}
	return err
}
