package store

import (
	"testing"

	dstest "github.com/ipfs/go-datastore/test"
)

// TestDatastoreConformance runs the library's own suite.
func TestDatastoreConformance(t *testing.T) {
	t.Run("memory", func(t *testing.T) { dstest.SubtestAll(t, openTest(t, Options{}).Datastore()) })
	t.Run("disk", func(t *testing.T) { dstest.SubtestAll(t, openTest(t, Options{Dir: t.TempDir()}).Datastore()) })
}
