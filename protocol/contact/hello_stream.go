package contact

import (
	"context"
	"fmt"
)

// SayHello runs the dialer's side over s and closes s. Errors are those of
// HelloDialer, ErrSlow, ErrCut and the cause of ctx.
func SayHello(ctx context.Context, s Stream, d *HelloDialer) (Greeting, error) {
	var g Greeting
	err := converse(ctx, s, HelloTimeout, func(c *conversation) error {
		b, err := d.Start()
		if err != nil {
			return err
		}
		if err := c.send(b); err != nil {
			return err
		}
		if b, err = c.receive(AnswerSize); err != nil {
			return err
		}
		g, err = d.Handle(b)
		return err
	})
	if err != nil {
		return Greeting{}, fmt.Errorf("say hello: %w", err)
	}
	return g, nil
}

// ServeHello runs the listener's side over s and closes s. Errors are those of
// HelloListener, ErrSlow, ErrCut and the cause of ctx.
func ServeHello(ctx context.Context, s Stream, l *HelloListener) (Greeting, error) {
	var g Greeting
	err := converse(ctx, s, HelloTimeout, func(c *conversation) error {
		b, err := c.receive(MaxHello)
		if err != nil {
			return err
		}
		var answer []byte
		if answer, g, err = l.Handle(b); answer == nil {
			return err
		}
		if sendErr := c.send(answer); sendErr != nil {
			return sendErr
		}
		if err != nil {
			return said{err}
		}
		return nil
	})
	if err != nil {
		return Greeting{}, fmt.Errorf("serve hello: %w", err)
	}
	return g, nil
}
