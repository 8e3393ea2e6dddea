//go:build linux || darwin

package devserver

import "syscall"

// space is what is free on the folder's file system for an ordinary user, and its size, in bytes.
func space(dir string) (free, size int64, known bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, 0, false
	}
	block := int64(s.Bsize) //nolint:unconvert // its type is not the same everywhere
	return int64(s.Bavail) * block, int64(s.Blocks) * block, true
}
