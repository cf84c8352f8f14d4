package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kinloom/kinloom/node"
	"github.com/kinloom/kinloom/node/corpus"
)

const (
	// searchWords are the words that are searched for: the most frequent ones, by
	// the same chance each, so that rare ones prevail as in what people look for.
	searchWords = 5000
	page        = 50 // messages of a conversation that is opened
)

// search measures searches in the archive and the opening of a conversation,
// with warm caches.
func (b *bench) search(ctx context.Context) (_ []Figure, err error) {
	home, err := b.cached(ctx)
	if err != nil {
		return nil, err
	}
	n, err := node.OpenOffline(ctx, node.Config{Dir: home, Version: b.Version})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	r, c := rand.New(rand.NewPCG(b.Seed, 2)), corpus.New(b.Seed)
	word := func() string { return c.Word(r.IntN(searchWords)) }
	find := func(q node.SearchQuery) error {
		_, err := n.Search(ctx, q)
		return err
	}
	kinds := []struct {
		name string
		ask  func() error
	}{
		{"search-word", func() error { return find(node.SearchQuery{Text: word()}) }},
		{"search-two-words", func() error { return find(node.SearchQuery{Text: word() + " " + word()}) }},
		{"search-word-person", func() error {
			return find(node.SearchQuery{Text: word(), Person: contactName(frequent(r, people))})
		}},
		{"open-conversation", func() error {
			messages, err := n.Read(ctx, contactName(frequent(r, people/2)), node.ReadQuery{Limit: page, Peek: true})
			if err == nil && len(messages) != page {
				err = fmt.Errorf("a page of %d messages, want %d", len(messages), page)
			}
			return err
		}},
	}
	var figures []Figure
	for _, k := range kinds {
		p50, p95, err := b.asked(ctx, k.ask)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		figures = append(figures, figure(k.name, p50, 0))
		if k.name != "open-conversation" {
			figures = append(figures, figure(k.name+"-p95", p95, 0))
		}
	}
	return figures, nil
}

// asked gives the medians, over all runs, of the middle and of the 95th
// percentile of f, in ms. What was called first is not counted.
func (b *bench) asked(ctx context.Context, f func() error) (p50, p95 float64, err error) {
	if _, err := timed(ctx, quickTime, f); err != nil {
		return 0, 0, err
	}
	var middles, ends []float64
	for range b.runs() {
		all, err := timed(ctx, b.runTime(), f)
		if err != nil {
			return 0, 0, err
		}
		middles, ends = append(middles, median(all)), append(ends, percentile(all, 0.95))
	}
	ms := float64(time.Millisecond / time.Microsecond)
	return median(middles) / ms, median(ends) / ms, nil
}
