package iscsi

import "hash/crc32"

// Header and data digests are CRC32C (section 13.1, polynomial 0x11edc6f41).
// On the wire the CRC's bytes stand in little-endian order: the digest of 32
// zero bytes is aa 36 91 8a (RFC 7143, appendix A.4).

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const digestSize = 4

// zeros pads data segments to a multiple of four (section 11.2.1.6 "Padding
// bytes SHOULD be sent as 0").
var zeros [3]byte

// pad is the count of padding bytes after n bytes.
func pad(n int) int { return -n & 3 }

func crcUpdate(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }
