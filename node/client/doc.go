// Package client speaks to a running node over its local API: the JSON types, each defined here once, and a small Go
// client over the node's unix socket or any other http.RoundTripper.
//
//	c := client.Dial("/run/user/1000/kinloom/api.sock")
//	m, err := c.Send(ctx, client.Outgoing{To: "ada", Text: "Hi!", Wait: "delivered"})
//
// It is all of kinloom that a user interface links. It holds no state but the connection, retries nothing and decides
// nothing: a failure comes back as a *Problem with the cause, the next step and the exit code of the command line.
package client
