package store

import "github.com/ncruces/go-sqlite3/vfs"

func newBlockVFS(v vfs.VFS) vfs.VFS { return v }
