package scsi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// TransportID is an iSCSI initiator port, or with HasISID false the initiator
// device with all its ports (SPC-4 7.6.4.6).
type TransportID struct {
	Name    string // iSCSI name
	ISID    [6]byte
	HasISID bool
}

const (
	transportISCSI = 0x05

	formatDevice = 0x00 << 6 // iSCSI name
	formatPort   = 0x01 << 6 // iSCSI name, ",i,0x" and ISID

	isidSeparator = ",i,0x"

	// nameMax is the greatest length of an iSCSI name (RFC 7143 4.2.7.1), and
	// transportMax of a TransportID with it.
	nameMax      = 223
	transportMax = 4 + (nameMax+len(isidSeparator)+12+1+3)/4*4
)

// Append appends the TransportID.
func (t TransportID) Append(b []byte) []byte {
	start := len(b)
	format := uint8(formatDevice)
	if t.HasISID {
		format = formatPort
	}
	b = append(b, format|transportISCSI, 0, 0, 0)
	b = append(b, t.Name...)
	if t.HasISID {
		b = append(b, isidSeparator...)
		b = hex.AppendEncode(b, t.ISID[:])
	}
	b = append(b, 0)
	// ADDITIONAL LENGTH is at least 20 and a multiple of 4.
	for (len(b)-start)%4 != 0 || len(b)-start < 24 {
		b = append(b, 0)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start-4))
	return b
}

// ParseTransportID reads one TransportID and returns its length. The error is
// nil or names the offset in b.
func ParseTransportID(b []byte) (t TransportID, n int, e *ParamError) {
	if len(b) < 4 {
		return t, 0, &ParamError{Length: true}
	}
	if b[0]&0x0F != transportISCSI {
		return t, 0, &ParamError{Byte: 0, Bit: 3}
	}
	n = 4 + int(binary.BigEndian.Uint16(b[2:]))
	// SPC-4 7.6.4.6: "The ADDITIONAL LENGTH field ... shall be at least 20
	// ... multiple of four."
	if n < 24 || n%4 != 0 || n > transportMax {
		return t, 0, &ParamError{Byte: 2, Bit: -1}
	}
	if n > len(b) {
		return t, 0, &ParamError{Length: true}
	}
	text, _, ok := bytes.Cut(b[4:n], []byte{0})
	if !ok {
		return t, 0, &ParamError{Byte: 4, Bit: -1}
	}
	t.Name = string(text)
	switch b[0] & 0xC0 {
	case formatDevice:
	case formatPort:
		name, isid, found := strings.Cut(t.Name, isidSeparator)
		if !found || hex.DecodedLen(len(isid)) != len(t.ISID) || len(isid)%2 != 0 {
			return t, 0, &ParamError{Byte: 4, Bit: -1}
		}
		if _, err := hex.Decode(t.ISID[:], []byte(isid)); err != nil {
			return t, 0, &ParamError{Byte: 4, Bit: -1}
		}
		t.Name, t.HasISID = name, true
	default:
		return t, 0, &ParamError{Byte: 0, Bit: 7}
	}
	if t.Name == "" || len(t.Name) > nameMax || !graphic(t.Name) {
		return t, 0, &ParamError{Byte: 4, Bit: -1}
	}
	return t, n, nil
}

// graphic tells whether a name has no spaces or control characters. iSCSI
// names are UTF-8, so bytes above 7Fh may be there.
func graphic(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7F {
			return false
		}
	}
	return true
}
