package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
)

// slowFS writes every block in two halves, with a chance for others between:
// what the kernel may do at any time, made frequent.
type slowFS struct{ vfs.VFS }

func (v slowFS) OpenFilename(n *vfs.Filename, fl vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.VFS, n, fl)
	if err != nil || fl&vfs.OPEN_WAL == 0 {
		return f, out, err
	}
	return slowFile{passFile{f}}, out, nil
}

type slowFile struct{ passFile }

func (f slowFile) WriteAt(p []byte, off int64) (int, error) {
	if n, err := f.File.WriteAt(p[:len(p)/2], off); err != nil {
		return n, err
	}
	runtime.Gosched()
	n, err := f.File.WriteAt(p[len(p)/2:], off+int64(len(p)/2))
	return n + len(p)/2, err
}

func (slowFile) Sync(vfs.SyncFlag) error { return nil }

// TestTornRead has readers look at a hot row beside its writer: they never see
// half a block. Without the lock the same readers do, which proves the test.
// (H145)
func TestTornRead(t *testing.T) {
	name := func(what string) string { return fmt.Sprintf("torn-%s-%x", what, rand.Uint64()) }
	none := func(string) error { return nil }
	slow := slowFS{vfs.Find("")}
	for layer, block := range layers {
		t.Run(layer, func(t *testing.T) {
			fs := name(layer)
			registerTest(t, fs, slow, none, block)
			reads, err := tornRead(t, fs, 1500*time.Millisecond*time.Duration(nightly))
			if err != nil {
				t.Errorf("after %d reads: %v", reads, err)
			}
			t.Logf("%d reads, none wrong", reads)
		})
	}
	t.Run("control", func(t *testing.T) {
		fs := name("control")
		vfs.Register(fs, adiantum.Wrap(slow, nil))
		t.Cleanup(func() { vfs.Unregister(fs) })
		reads, err := tornRead(t, fs, time.Minute)
		if err == nil {
			t.Errorf("%d reads without the lock, and none wrong: the test proves nothing", reads)
		}
		t.Logf("after %d reads: %v", reads, err)
	})
}

// tornRead reads until the time is over or something is wrong.
func tornRead(t *testing.T, fs string, d time.Duration) (int64, error) {
	s, err := openAccount(t, Options{Dir: t.TempDir(), vfs: fs})
	check(t, err)
	put := func(n int) error {
		body := bodyOf(n)[:20+n%900]
		hash := sha256.Sum256(body)
		return s.Write(t.Context(), func(tx *Tx) error {
			return tx.Exec("INSERT OR REPLACE INTO hot(one, n, body, hash) VALUES(1, ?, ?, ?)", n, body, hash[:])
		})
	}
	for i := range 1000 {
		if len(bodyOf(i)) >= 20+i%900 {
			check(t, put(i))
			break
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var reads atomic.Int64
	var mu sync.Mutex // guards wrong
	var wrong error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if wrong == nil && ctx.Err() == nil {
			wrong = err
			cancel()
		}
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := s.Read(ctx, func(tx *Tx) error {
					found, err := tx.one("SELECT body, hash FROM hot", func(st *sqlite3.Stmt) {
						if hash := sha256.Sum256(st.ColumnRawBlob(0)); !bytes.Equal(hash[:], st.ColumnRawBlob(1)) {
							fail(errors.New("a wrong row"))
						}
					})
					if err == nil && !found {
						err = errors.New("no row")
					}
					return err
				})
				if err != nil {
					fail(err)
				}
				reads.Add(1)
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		if len(bodyOf(i)) < 20+i%900 {
			continue
		}
		if err := put(i); err != nil {
			fail(err)
		}
	}
	wg.Wait()
	return reads.Load(), wrong
}

// TestFilesArePrivate: mode 0600 whatever the umask, and nothing readable.
func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	s, err := openAccount(t, Options{Dir: dir})
	check(t, err)
	words := []byte("an unmistakable sentence that nobody else writes")
	check(t, s.Write(t.Context(), func(tx *Tx) error {
		return tx.Exec("INSERT INTO row(n, body, hash, changed) VALUES(1, ?, x'00', 1)", words)
	}))
	names, err := os.ReadDir(dir)
	check(t, err)
	for _, n := range names {
		fi, err := n.Info()
		check(t, err)
		if fi.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%s has mode %v", n.Name(), fi.Mode())
		}
		b, err := os.ReadFile(filepath.Join(dir, n.Name()))
		check(t, err)
		if bytes.Contains(b, words) || bytes.Contains(b, []byte("SQLite format")) || bytes.Contains(b, []byte("CREATE TABLE")) {
			t.Errorf("%s is readable without the key", n.Name())
		}
	}
	if len(names) != 3 {
		t.Errorf("files: %v, want database, -wal and -shm", names)
	}
}

// TestDeletedTextIsGone looks for a deleted text in every decrypted block of
// the database and its log.
func TestDeletedTextIsGone(t *testing.T) {
	dir := t.TempDir()
	s, err := openAccount(t, Options{Dir: dir})
	check(t, err)
	mark := "quetzalcoatl"
	long := []byte(strings.Repeat(mark+" ", 700)) // with overflow pages
	for n := range 60 {
		check(t, s.Write(t.Context(), func(tx *Tx) error {
			return tx.Exec("INSERT INTO row(n, body, hash, changed) VALUES(?, ?, x'00', ?)", n, long[:100+n*130], n)
		}))
	}
	found := func() int {
		n := 0
		for _, f := range []string{AccountFile, AccountFile + "-wal"} {
			n += bytes.Count(rawFile(t, s.account, filepath.Join(dir, f)), []byte(mark))
		}
		return n
	}
	if found() == 0 {
		t.Fatal("the text is not found even before it is deleted: the test proves nothing")
	}
	check(t, s.Write(t.Context(), func(tx *Tx) error { return tx.Exec("UPDATE row SET body = x'' WHERE n % 2 = 0") }))
	check(t, s.Write(t.Context(), func(tx *Tx) error { return tx.Exec("DELETE FROM row WHERE n % 2 = 1") }))
	check(t, s.account.checkpoint(t.Context()))
	if n := found(); n != 0 {
		t.Errorf("found %d times after it was deleted", n)
	}
}

// rawFile is a decrypted file of a home.
func rawFile(t testing.TB, d *database, path string) []byte {
	t.Helper()
	if n, err := fileSize(path); err != nil || n <= 0 {
		check(t, err)
		return nil
	}
	var b []byte
	check(t, d.readRaw(path, func(f vfs.File) error {
		n, err := f.Size()
		if err != nil {
			return err
		}
		b = make([]byte, n)
		for at := int64(0); at+cipherBlock <= n; at += cipherBlock {
			if _, err := f.ReadAt(b[at:at+cipherBlock], at); err != nil {
				return err
			}
		}
		return nil
	}))
	return b
}

// TestFlippedBit changes one bit in each page: a reader gets an error or the
// right text, never a wrong one.
func TestFlippedBit(t *testing.T) {
	dir := t.TempDir()
	s, err := openAccount(t, Options{Dir: dir})
	check(t, err)
	const rows = 60
	for n := range rows {
		body := bytes.Repeat(bodyOf(n), 700)[:300+n*200]
		hash := sha256.Sum256(body)
		check(t, s.Write(t.Context(), func(tx *Tx) error {
			return tx.Exec("INSERT INTO row(n, body, hash, changed) VALUES(?, ?, ?, ?)", n, body, hash[:], n)
		}))
	}
	check(t, s.account.close())
	path := filepath.Join(dir, AccountFile)
	whole, err := os.ReadFile(path)
	check(t, err)
	r := rand.New(rand.NewPCG(5, 5))
	silent, refused := 0, 0
	for at := 0; at < len(whole); at += pageSize {
		b := bytes.Clone(whole)
		b[at+r.IntN(pageSize)] ^= 1 << r.IntN(8)
		check(t, os.WriteFile(path, b, 0o600))
		wrong, err := readFlipped(t, dir)
		if wrong > 0 {
			silent++
		}
		if err != nil {
			refused++
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("page %d: %v, want %v", at/pageSize, err, ErrDamaged)
			}
		}
	}
	t.Logf("%d pages: %d refused, %d gave a wrong text", len(whole)/pageSize, refused, silent)
	if silent > 0 || refused == 0 {
		t.Errorf("%d pages gave a wrong text, %d an error", silent, refused)
	}
}

// readFlipped reads all rows one by one and counts those that are wrong.
func readFlipped(t *testing.T, dir string) (wrong int, err error) {
	s, err := openAccount(t, Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	for n := range 60 {
		rerr := s.Read(t.Context(), func(tx *Tx) error {
			_, err := tx.one("SELECT body, hash FROM row WHERE n = ?", func(st *sqlite3.Stmt) {
				if hash := sha256.Sum256(st.ColumnRawBlob(0)); !bytes.Equal(hash[:], st.ColumnRawBlob(1)) {
					wrong++
				}
			}, n)
			return err
		})
		if rerr != nil {
			err = rerr
		}
	}
	_ = s.account.close() // may find the damage too
	return wrong, err
}
