// Package api serves a node over HTTP: OpenAPI 3.1 for what is asked and done, server-sent events for what changes. It
// is a thin adapter: every handler calls one method of node and turns its values into the types of node/client.
//
//	handler := api.New(n, api.Options{Stop: cancel})
//	listener, err := api.Listen(home, "/run/user/1000/kinloom/api.sock")
//	...
//	err = api.Serve(ctx, listener, handler)
//
// The same handler answers in-process through client.InProcess, so a command without a running node takes the same path.
// Paths, fields and codes under /v1 only grow; testdata/openapi.json is the record of them. Whoever may open the socket,
// in a folder of mode 0700, is the owner: there is no other right here, and nothing of this listens on TCP.
package api
