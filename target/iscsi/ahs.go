package iscsi

import "encoding/binary"

// ahsType is the type of an Additional Header Segment (section 11.2.2.2).
type ahsType uint8

const (
	ahsExtendedCDB ahsType = 1
	ahsReadLength  ahsType = 2 // bidirectional read expected data length
)

// An AHS (section 11.2.2) is
//
//	0 | AHSLength     | AHSType       | AHS-specific  |
//	4 | AHS-specific ...              | padding to 4  |
//
// AHSLength counts from byte 3 to the end without padding.
const (
	ahsFixed  = 3 // what AHSLength does not count
	ahsHeader = 4 // where CDB and length begin: byte 3 is reserved in both
)

// AHS is what the Additional Header Segments of a SCSI command say.
type AHS struct {
	ExtraCDB      []byte // the CDB from byte 16 on, in place; at most MaxCDB-16 bytes
	ReadLength    uint32 // expected read length of a bidirectional command, bytes
	HasReadLength bool
}

// ParseAHS reads the Additional Header Segments of a SCSI Command PDU. Segments
// of other types are refused, since they change what the command means. Every
// error is a *RejectError.
func ParseAHS(b []byte) (AHS, error) {
	var a AHS
	for len(b) > 0 {
		if len(b) < ahsHeader {
			return AHS{}, invalidField("AHS cut off in its header")
		}
		n := int(binary.BigEndian.Uint16(b))
		size := (ahsFixed + n + 3) &^ 3
		if n == 0 || size > len(b) {
			return AHS{}, invalidField("AHSLength leaves TotalAHSLength")
		}
		switch ahsType(b[2]) {
		case ahsExtendedCDB:
			extra := b[ahsHeader : ahsFixed+n]
			if a.ExtraCDB != nil || len(extra) == 0 || len(extra) > MaxCDB-16 {
				return AHS{}, invalidField("Extended CDB AHS twice, empty or too long")
			}
			a.ExtraCDB = extra
		case ahsReadLength:
			if a.HasReadLength || n != 5 {
				return AHS{}, invalidField("Bidirectional Read AHS twice or of the wrong length")
			}
			a.ReadLength, a.HasReadLength = binary.BigEndian.Uint32(b[ahsHeader:]), true
		default:
			return AHS{}, invalidField("AHS of an unknown type")
		}
		b = b[size:]
	}
	return a, nil
}

// AppendExtendedCDB appends the AHS that carries a CDB's bytes from 16 on.
func AppendExtendedCDB(b, extra []byte) []byte {
	n := len(extra) + 1
	b = append(b, byte(n>>8), byte(n), byte(ahsExtendedCDB), 0)
	b = append(b, extra...)
	return append(b, zeros[:pad(len(extra))]...)
}

// AppendReadLength appends the AHS with the read length of a bidirectional
// command.
func AppendReadLength(b []byte, n uint32) []byte {
	b = append(b, 0, 5, byte(ahsReadLength), 0)
	return binary.BigEndian.AppendUint32(b, n)
}

func invalidField(why string) error {
	return &RejectError{Reason: RejectInvalidPDUField, Why: why}
}
