package scsi

import "encoding/binary"

// PageControl is the PC field of MODE SENSE (SPC-4 table 145).
type PageControl uint8

const (
	PageCurrent    PageControl = 0
	PageChangeable PageControl = 1
	PageDefault    PageControl = 2
	PageSaved      PageControl = 3
)

// Mode pages.
const (
	ModeErrorRecovery uint8 = 0x01
	ModeCaching       uint8 = 0x08
	ModeControl       uint8 = 0x0A
	ModeExceptions    uint8 = 0x1C
	ModeAll           uint8 = 0x3F
)

// Subpage codes.
const (
	SubpageNone uint8 = 0x00
	SubpageAll  uint8 = 0xFF
)

// ModeValues is the mode parameters that differ from unit to unit or can be
// changed.
type ModeValues struct {
	WriteCache      bool // WCE; not changeable by the initiator
	DescriptorSense bool // D_SENSE
	SoftwareProtect bool // SWP
	TaskAborted     bool // TAS
}

// modePage is a mode page of a disk: its values and what can be changed of it.
type modePage struct {
	code       uint8
	make       func(ModeValues) []byte // the whole page with its two-byte header
	changeable []byte                  // a mask of the same length
}

// modePages are in ascending order (SPC-4 6.11.1: all pages are returned so).
var modePages = []modePage{
	{ModeErrorRecovery, errorRecoveryPage, []byte{11: 0}},
	{ModeCaching, cachingPage, []byte{19: 0}},
	{ModeControl, controlPage, []byte{2: modeDSense, 4: modeSWP, 5: modeTAS, 11: 0}},
	{ModeExceptions, exceptionsPage, []byte{11: 0}},
}

const (
	modeDSense = 0x04 // byte 2 of the control page
	modeSWP    = 0x08 // byte 4
	modeTAS    = 0x40 // byte 5
	modeWCE    = 0x04 // byte 2 of the caching page
)

// errorRecoveryPage: AWRE and ARRE, since bad blocks are repaired from the
// other copy.
func errorRecoveryPage(ModeValues) []byte {
	return []byte{ModeErrorRecovery, 10, 0xC0, 11: 0}
}

func cachingPage(v ModeValues) []byte {
	p := []byte{ModeCaching, 18, 19: 0}
	if v.WriteCache {
		p[2] |= modeWCE
	}
	return p
}

// controlPage: TST 001b (a task set for each I_T nexus), unrestricted
// reordering, busy timeout unlimited.
func controlPage(v ModeValues) []byte {
	p := []byte{ModeControl, 10, 0x20, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0}
	if v.DescriptorSense {
		p[2] |= modeDSense
	}
	if v.SoftwareProtect {
		p[4] |= modeSWP
	}
	if v.TaskAborted {
		p[5] |= modeTAS
	}
	return p
}

// exceptionsPage: DEXCPT, no informational exceptions are reported.
func exceptionsPage(ModeValues) []byte {
	return []byte{ModeExceptions, 10, 0x08, 11: 0}
}

// AppendModePages appends mode pages: one, or all for ModeAll. For PageDefault
// pass the default values. ok is false if there is no such page or subpage.
func AppendModePages(b []byte, page, subpage uint8, control PageControl, v ModeValues) (out []byte, ok bool) {
	// Only page_0 formats exist; asking for all subpages gets those.
	if subpage != SubpageNone && subpage != SubpageAll {
		return b, false
	}
	for i := range modePages {
		p := &modePages[i]
		if page != p.code && page != ModeAll {
			continue
		}
		ok = true
		if control == PageChangeable {
			b = append(b, p.code, uint8(len(p.changeable)-2))
			b = append(b, p.changeable[2:]...)
			continue
		}
		b = append(b, p.make(v)...)
	}
	return b, ok
}

// Device-specific parameter bits of a disk (SBC-3 6.4.1).
const (
	ModeWP     uint8 = 0x80
	ModeDPOFUA uint8 = 0x10
)

// AppendModeHeader appends the mode parameter header and block descriptor of
// MODE SENSE: of the 6-byte CDB, or the 10-byte (long). descriptor is 0 for no
// block descriptor, else its length, 8 or 16. The length field is for
// CloseMode to fill in.
func AppendModeHeader(b []byte, long bool, specific uint8, descriptor int, capacity Capacity) []byte {
	if long {
		b = append(b, 0, 0, 0, specific, 0, 0, 0, uint8(descriptor))
		if descriptor == 16 {
			b[len(b)-4] |= 1 // LONGLBA
		}
	} else {
		b = append(b, 0, 0, specific, uint8(descriptor))
	}
	switch descriptor {
	case 8:
		b = binary.BigEndian.AppendUint32(b, uint32(min(capacity.Blocks, 0xFFFFFFFF)))
		b = binary.BigEndian.AppendUint32(b, capacity.BlockLength&0xFFFFFF)
	case 16:
		b = binary.BigEndian.AppendUint64(b, capacity.Blocks)
		b = append(b, 0, 0, 0, 0)
		b = binary.BigEndian.AppendUint32(b, capacity.BlockLength)
	}
	return b
}

// CloseMode fills in MODE DATA LENGTH of parameter data that begins with a
// header.
func CloseMode(b []byte, long bool) {
	if long {
		binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	} else {
		b[0] = uint8(min(len(b)-1, 255))
	}
}

// ParamError says where a parameter list is wrong. Truncated lists have
// Length set.
type ParamError struct {
	Length bool // PARAMETER LIST LENGTH ERROR, else INVALID FIELD IN PARAMETER LIST
	Byte   int
	Bit    int8 // leftmost bit of the field in error, -1 for the whole byte
}

func (e *ParamError) Error() string {
	if e.Length {
		return "parameter list length error"
	}
	return "invalid field in parameter list"
}

// ParseModeSelect reads a MODE SELECT parameter list and returns cur with the
// changes applied. A list that would change what can't be changed is an error
// (SPC-4 6.9), and then nothing applies.
func ParseModeSelect(list []byte, long bool, cur ModeValues, capacity Capacity) (ModeValues, *ParamError) {
	if len(list) == 0 {
		return cur, nil
	}
	head, descriptor := 4, 0
	if long {
		head = 8
	}
	if len(list) < head {
		return cur, &ParamError{Length: true}
	}
	if long {
		descriptor = int(binary.BigEndian.Uint16(list[6:]))
	} else {
		descriptor = int(list[3])
	}
	if len(list) < head+descriptor {
		return cur, &ParamError{Length: true}
	}
	if e := checkDescriptor(list[head:head+descriptor], head, long && list[4]&1 != 0, capacity); e != nil {
		return cur, e
	}
	v := cur
	for at := head + descriptor; at < len(list); {
		n, e := selectPage(list[at:], at, cur, &v)
		if e != nil {
			return cur, e
		}
		at += n
	}
	return v, nil
}

// checkDescriptor accepts a block descriptor only if it leaves the capacity
// and block length alone. at is its offset in the list.
func checkDescriptor(d []byte, at int, longLBA bool, c Capacity) *ParamError {
	var blocks uint64
	var length uint32
	switch {
	case len(d) == 0:
		return nil
	case len(d) == 8 && !longLBA:
		blocks, length = uint64(binary.BigEndian.Uint32(d)), binary.BigEndian.Uint32(d[4:])&0xFFFFFF
		if blocks == 0xFFFFFFFF {
			blocks = 0
		}
	case len(d) == 16 && longLBA:
		blocks, length = binary.BigEndian.Uint64(d), binary.BigEndian.Uint32(d[12:])
	default:
		return &ParamError{Byte: at - 1, Bit: -1}
	}
	if blocks != 0 && blocks != c.Blocks {
		return &ParamError{Byte: at, Bit: -1}
	}
	if length != c.BlockLength {
		return &ParamError{Byte: at + len(d) - 3, Bit: -1}
	}
	return nil
}

// selectPage applies one page of the list to v and returns its length. at is
// its offset in the list.
func selectPage(d []byte, at int, cur ModeValues, v *ModeValues) (int, *ParamError) {
	if len(d) < 2 {
		return 0, &ParamError{Length: true}
	}
	code := d[0] & 0x3F
	if d[0]&0x40 != 0 { // SPF: there are no subpages
		return 0, &ParamError{Byte: at, Bit: 6}
	}
	for i := range modePages {
		p := &modePages[i]
		if p.code != code {
			continue
		}
		now := p.make(cur)
		if int(d[1]) != len(now)-2 {
			return 0, &ParamError{Byte: at + 1, Bit: -1}
		}
		if len(d) < len(now) {
			return 0, &ParamError{Length: true}
		}
		for j := 2; j < len(now); j++ {
			if (d[j]^now[j])&^p.changeable[j] != 0 {
				return 0, &ParamError{Byte: at + j, Bit: -1}
			}
		}
		if code == ModeControl {
			v.DescriptorSense = d[2]&modeDSense != 0
			v.SoftwareProtect = d[4]&modeSWP != 0
			v.TaskAborted = d[5]&modeTAS != 0
		}
		return len(now), nil
	}
	return 0, &ParamError{Byte: at, Bit: 5}
}
