package scsi

import (
	"encoding/binary"
	"fmt"
)

// Peripheral qualifier and device type, byte 0 of INQUIRY data.
const (
	PeripheralDisk   uint8 = 0x00
	PeripheralAbsent uint8 = 0x7F // qualifier 011b, type 1Fh: no such logical unit
)

// Vital product data pages.
const (
	VPDSupported      uint8 = 0x00
	VPDSerial         uint8 = 0x80
	VPDIdentification uint8 = 0x83
	VPDExtended       uint8 = 0x86
	VPDBlockLimits    uint8 = 0xB0
	VPDBlockChars     uint8 = 0xB1
	VPDProvisioning   uint8 = 0xB2
)

// VPDPages is the pages that a logical unit has, in ascending order.
var VPDPages = []uint8{VPDSupported, VPDSerial, VPDIdentification, VPDExtended,
	VPDBlockLimits, VPDBlockChars, VPDProvisioning}

// versions is the version descriptors of standard INQUIRY data (SPC-4 6.4.2).
var versions = []uint16{
	0x00A0, // SAM-5 (no version claimed)
	0x0460, // SPC-4
	0x04C0, // SBC-3
	0x0960, // iSCSI
}

// Inquiry is what standard INQUIRY data tells about a disk.
type Inquiry struct {
	Vendor   string // T10 vendor identification, at most 8 bytes
	Product  string // at most 16 bytes
	Revision string // at most 4 bytes
	ThirdPty bool   // 3PC: EXTENDED COPY works
}

// Append appends standard INQUIRY data (SPC-4 6.4.2) of a disk, 96 bytes.
func (q Inquiry) Append(b []byte) []byte {
	var d [96]byte
	d[0] = PeripheralDisk
	d[2] = 0x06      // VERSION: SPC-4
	d[3] = 0x10 | 2  // HISUP, RESPONSE DATA FORMAT
	d[4] = 96 - 5    // ADDITIONAL LENGTH
	d[5] = 0x01 << 4 // TPGS: implicit asymmetric access only
	if q.ThirdPty {
		d[5] |= 0x08
	}
	d[6] = 0x10 // MULTIP
	d[7] = 0x02 // CMDQUE
	ascii(d[8:16], q.Vendor)
	ascii(d[16:32], q.Product)
	ascii(d[32:36], q.Revision)
	for i, v := range versions {
		binary.BigEndian.PutUint16(d[58+2*i:], v)
	}
	return append(b, d[:]...)
}

// AppendInquiryAbsent appends standard INQUIRY data of a LUN that has no
// logical unit (SPC-4 6.4.1).
func AppendInquiryAbsent(b []byte) []byte {
	var d [36]byte
	d[0] = PeripheralAbsent
	d[2], d[3], d[4] = 0x06, 0x02, 36-5
	ascii(d[8:36], "")
	return append(b, d[:]...)
}

// ascii fills a left-aligned field of graphic codes, padded with spaces
// (SPC-4 4.3.1).
func ascii(field []byte, s string) {
	for i := range field {
		field[i] = ' '
		if i < len(s) && s[i] > 0x20 && s[i] < 0x7F {
			field[i] = s[i]
		}
	}
}

// vpd opens a VPD page of a disk; closePage writes its length.
func vpd(b []byte, page uint8) []byte { return append(b, PeripheralDisk, page, 0, 0) }

func closePage(b []byte, start int) []byte {
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start-4))
	return b
}

// AppendVPDSupported appends page 00h.
func AppendVPDSupported(b []byte) []byte {
	start := len(b)
	return closePage(append(vpd(b, VPDSupported), VPDPages...), start)
}

// AppendVPDSerial appends page 80h.
func AppendVPDSerial(b []byte, serial string) []byte {
	start := len(b)
	return closePage(append(vpd(b, VPDSerial), serial...), start)
}

// Identity is what page 83h tells about a logical unit and the target port
// that the command came through.
type Identity struct {
	NAA          [16]byte // NAA IEEE Registered Extended
	Vendor       string   // T10 vendor identification
	Serial       string
	TargetPort   uint16 // relative target port identifier
	PortGroup    uint16 // target port group
	TargetName   string // iSCSI name of the target
	PortalTag    uint16 // target portal group tag
	WithoutPorts bool   // leave the association 1 descriptors out
}

// Designation descriptor header fields (SPC-4 7.8.5).
const (
	codeBinary   = 0x01
	codeASCII    = 0x02
	codeUTF8     = 0x03
	assocLU      = 0x00
	assocPort    = 0x90 // PIV, association 01b
	protoISCSI   = 0x50 // PROTOCOL IDENTIFIER 5h
	designT10    = 0x01
	designNAA    = 0x03
	designRTPI   = 0x04
	designTPG    = 0x05
	designSCSI   = 0x08
	identityLong = 256 // bound of one designator
)

// AppendVPDIdentification appends page 83h. There is no SCSI name string of
// association 0: Linux would rank it above the NAA.
func (id Identity) AppendVPDIdentification(b []byte) []byte {
	start := len(b)
	b = vpd(b, VPDIdentification)
	b = append(b, codeBinary, assocLU|designNAA, 0, 16)
	b = append(b, id.NAA[:]...)
	b = append(b, codeASCII, assocLU|designT10, 0, uint8(8+len(id.Serial)))
	b = append(b, "        "...)
	ascii(b[len(b)-8:], id.Vendor)
	b = append(b, id.Serial...)
	if !id.WithoutPorts {
		b = id.appendPort(b)
	}
	return closePage(b, start)
}

func (id Identity) appendPort(b []byte) []byte {
	b = append(b, protoISCSI|codeBinary, assocPort|designRTPI, 0, 4, 0, 0)
	b = binary.BigEndian.AppendUint16(b, id.TargetPort)
	b = append(b, protoISCSI|codeBinary, assocPort|designTPG, 0, 4, 0, 0)
	b = binary.BigEndian.AppendUint16(b, id.PortGroup)
	// SCSI name string: null-terminated and padded to a multiple of four.
	b = append(b, protoISCSI|codeUTF8, assocPort|designSCSI, 0, 0)
	at := len(b)
	b = fmt.Appendf(b, "%s,t,0x%04x", id.TargetName, id.PortalTag)
	b = append(b, 0)
	for (len(b)-at)%4 != 0 {
		b = append(b, 0)
	}
	b[at-1] = uint8(min(len(b)-at, identityLong-4))
	return b[:at+int(b[at-1])]
}

// AppendVPDExtended appends page 86h: HEADSUP, SIMPSUP and ORDSUP; no
// protection information; LUICLR, since unit attentions of one I_T nexus are
// cleared alone; 64 supported levels are none.
func AppendVPDExtended(b []byte, writeCache bool) []byte {
	start := len(b)
	b = append(vpd(b, VPDExtended), make([]byte, 60)...)
	d := b[start:]
	d[5] = 0x07 // HEADSUP, ORDSUP, SIMPSUP
	if writeCache {
		d[6] = 0x01 // V_SUP
	}
	d[7] = 0x01 // LUICLR
	return closePage(b, start)
}

// BlockLimits is page B0h (SBC-3 6.5.3; the atomic fields SBC-4 6.6.4).
// Lengths are in logical blocks.
type BlockLimits struct {
	MaxCompareAndWrite    uint8
	OptimalGranularity    uint16
	MaxTransfer           uint32
	OptimalTransfer       uint32
	MaxPrefetch           uint32
	MaxUnmap              uint32
	MaxUnmapDescriptors   uint32
	UnmapGranularity      uint32
	UnmapAlignment        uint32
	MaxWriteSame          uint64
	MaxAtomic             uint32
	AtomicAlignment       uint32
	AtomicGranularity     uint32
	MaxAtomicWithBoundary uint32
	MaxAtomicBoundary     uint32
}

// Append appends page B0h.
func (l BlockLimits) Append(b []byte) []byte {
	start := len(b)
	b = append(vpd(b, VPDBlockLimits), make([]byte, 60)...)
	d := b[start:]
	be := binary.BigEndian
	d[4] = 0x01 // WSNZ: a WRITE SAME of zero blocks is refused
	d[5] = l.MaxCompareAndWrite
	be.PutUint16(d[6:], l.OptimalGranularity)
	be.PutUint32(d[8:], l.MaxTransfer)
	be.PutUint32(d[12:], l.OptimalTransfer)
	be.PutUint32(d[16:], l.MaxPrefetch)
	be.PutUint32(d[20:], l.MaxUnmap)
	be.PutUint32(d[24:], l.MaxUnmapDescriptors)
	be.PutUint32(d[28:], l.UnmapGranularity)
	be.PutUint32(d[32:], l.UnmapAlignment)
	d[32] |= 0x80 // UGAVALID
	be.PutUint64(d[36:], l.MaxWriteSame)
	be.PutUint32(d[44:], l.MaxAtomic)
	be.PutUint32(d[48:], l.AtomicAlignment)
	be.PutUint32(d[52:], l.AtomicGranularity)
	be.PutUint32(d[56:], l.MaxAtomicWithBoundary)
	be.PutUint32(d[60:], l.MaxAtomicBoundary)
	return closePage(b, start)
}

// AppendVPDBlockCharacteristics appends page B1h: a medium without rotation.
func AppendVPDBlockCharacteristics(b []byte) []byte {
	start := len(b)
	b = append(vpd(b, VPDBlockChars), make([]byte, 60)...)
	binary.BigEndian.PutUint16(b[start+4:], 0x0001)
	return closePage(b, start)
}

// AppendVPDProvisioning appends page B2h: thin provisioned, UNMAP and WRITE
// SAME with UNMAP supported, unmapped blocks read as zeros. thresholdExp is
// the threshold set size as a power of two of blocks, 0 for no thresholds.
func AppendVPDProvisioning(b []byte, thresholdExp uint8) []byte {
	start := len(b)
	b = append(vpd(b, VPDProvisioning), thresholdExp,
		0x80|0x40|0x20|0x04, // LBPU, LBPWS, LBPWS10, LBPRZ 001b
		0x02, 0)             // PROVISIONING TYPE: thin
	return closePage(b, start)
}
