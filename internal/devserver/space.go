package devserver

import (
	"io/fs"
	"path/filepath"
)

const (
	// A part of the file system is left to others and to the store's own bookkeeping: a twentieth, within these bounds.
	reservePart            = 20
	minReserve, maxReserve = 16 << 20, 1 << 30
	// minStore is a limit that a server can start with at all; 0 would have it choose one.
	minStore = 1 << 20
)

// storeLimit is how many bytes all streams may have.
func storeLimit(dir string, bounded bool) int64 {
	free, size, known := space(dir)
	if !bounded || !known {
		return maxStore
	}
	return boundedStore(usedBy(dir), free, size)
}

// boundedStore leaves a part of a file system with the given size to others than a store that has used bytes.
func boundedStore(used, free, size int64) int64 {
	reserve := min(max(size/reservePart, minReserve), maxReserve)
	return min(max(used+free-reserve, minStore), maxStore)
}

// freeSpace is how many bytes can still be written to the folder's file system, if that is known.
func freeSpace(dir string) (free int64, known bool) {
	free, _, known = space(dir)
	return free, known
}

// usedBy is the size of all files in a folder. Files that vanish meanwhile do not count.
func usedBy(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
