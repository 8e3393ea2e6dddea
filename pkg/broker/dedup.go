package broker

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// dedupID returns the same 32 characters for the same source and id, which together identify an event (CloudEvents 1.0,
// section "id"), and different ones for any others. The length keeps ("ab", "c") apart from ("a", "bc").
func dedupID(source, id string) string {
	buf := make([]byte, 0, 256)
	buf = binary.BigEndian.AppendUint64(buf, uint64(len(source)))
	buf = append(buf, source...)
	buf = append(buf, id...)
	sum := sha256.Sum256(buf)
	return hex.EncodeToString(sum[:16])
}
