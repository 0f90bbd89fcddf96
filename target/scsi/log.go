package scsi

import "encoding/binary"

// Log pages.
const (
	LogSupported    uint8 = 0x00
	LogProvisioning uint8 = 0x0C // Logical Block Provisioning, SBC-3 6.3.4
)

// AppendLogSupported appends log page 00h.
func AppendLogSupported(b []byte) []byte {
	return append(b, LogSupported, 0, 0, 2, LogSupported, LogProvisioning)
}

// Parameters of the Logical Block Provisioning log page.
const (
	logAvailable = 0x0001 // available LBA mapping resource count
	logUsed      = 0x0002 // used LBA mapping resource count
)

// Scope of a resource count: what shares it.
const (
	scopeDedicated = 0x01
	scopeShared    = 0x02
)

// AppendLogProvisioning appends log page 0Ch, the parameters from first on.
// Counts are in threshold sets (VPD page B2h). What is available is shared
// with other units; what is used is this unit's own.
func AppendLogProvisioning(b []byte, first uint16, available, used uint32) []byte {
	start := len(b)
	b = append(b, LogProvisioning, 0, 0, 0)
	add := func(code uint16, count uint32, scope uint8) {
		if code < first {
			return
		}
		b = binary.BigEndian.AppendUint16(b, code)
		b = append(b, 0x03, 8) // FORMAT AND LINKING 11b: binary list
		b = binary.BigEndian.AppendUint32(b, count)
		b = append(b, scope, 0, 0, 0)
	}
	add(logAvailable, available, scopeShared)
	add(logUsed, used, scopeDedicated)
	return closePage(b, start)
}
