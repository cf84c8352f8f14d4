package node_test

import (
	"context"
	"fmt"
	"log"

	"github.com/kinloom/kinloom/node"
)

// An echo bot: it answers every message in the conversation it came from.
func Example() {
	ctx := context.Background()
	n, err := node.Open(ctx, node.Config{Dir: "/var/lib/echo"})
	if err != nil {
		log.Fatal(err)
	}
	defer n.Close()

	link, err := n.Invite(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("invite:", link)
	for m, err := range n.Messages(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		if _, err := n.Send(ctx, m.Conversation, node.Text("echo: "+m.Text)); err != nil {
			log.Print(err)
		}
	}
}
