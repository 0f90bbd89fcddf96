package scsi

import (
	"encoding/binary"
	"fmt"
)

// ReservationType is the type of a persistent reservation (SPC-4 table 221).
type ReservationType uint8

const (
	NoReservation                  ReservationType = 0
	WriteExclusive                 ReservationType = 1
	ExclusiveAccess                ReservationType = 3
	WriteExclusiveRegistrantsOnly  ReservationType = 5
	ExclusiveAccessRegistrantsOnly ReservationType = 6
	WriteExclusiveAllRegistrants   ReservationType = 7
	ExclusiveAccessAllRegistrants  ReservationType = 8

	reservationTypes = 9
)

// The only scope there is: the logical unit.
const reservationScopeLU = 0

// The parameter list of PERSISTENT RESERVE OUT (SPC-4 tables 213 and 216).
const (
	persistentListLen        = 24
	persistentFlagsAt        = 20
	persistentTransportIDsAt = 28

	persistentMoveHeader            = 24
	persistentMoveFlagsAt           = 17
	persistentMoveTransportLengthAt = 20

	persistentFlagSpecIPT    uint8 = 0x08
	persistentFlagAllTGPT    uint8 = 0x04
	persistentFlagUnregister uint8 = 0x02
	persistentFlagAPTPL      uint8 = 0x01
)

var reservationTypeNames = [reservationTypes]string{
	NoReservation:                  "none",
	WriteExclusive:                 "Write Exclusive",
	ExclusiveAccess:                "Exclusive Access",
	WriteExclusiveRegistrantsOnly:  "Write Exclusive - Registrants Only",
	ExclusiveAccessRegistrantsOnly: "Exclusive Access - Registrants Only",
	WriteExclusiveAllRegistrants:   "Write Exclusive - All Registrants",
	ExclusiveAccessAllRegistrants:  "Exclusive Access - All Registrants",
}

func (t ReservationType) String() string {
	if t < reservationTypes && reservationTypeNames[t] != "" {
		return reservationTypeNames[t]
	}
	return fmt.Sprintf("reservation type %Xh", uint8(t))
}

// Valid tells whether t is a type that can be reserved.
func (t ReservationType) Valid() bool {
	return t != NoReservation && t < reservationTypes && reservationTypeNames[t] != ""
}

// Exclusive tells the Exclusive Access types from the Write Exclusive ones.
func (t ReservationType) Exclusive() bool {
	return t == ExclusiveAccess || t == ExclusiveAccessRegistrantsOnly || t == ExclusiveAccessAllRegistrants
}

// Registrants tells the types under which every registrant has access.
func (t ReservationType) Registrants() bool { return t >= WriteExclusiveRegistrantsOnly }

// AllRegistrants tells the types that every registrant holds.
func (t ReservationType) AllRegistrants() bool { return t >= WriteExclusiveAllRegistrants }

// PersistentOutMax is the greatest parameter list length of PERSISTENT RESERVE
// OUT that is accepted, in bytes: enough for the TransportIDs of 64 ports.
const PersistentOutMax = persistentTransportIDsAt + 64*transportMax

// PersistentOut is a PERSISTENT RESERVE OUT command with its parameter list.
type PersistentOut struct {
	Action       uint8
	Type         ReservationType
	Key          uint64 // RESERVATION KEY: that of the nexus
	ActionKey    uint64 // SERVICE ACTION RESERVATION KEY
	AllPorts     bool   // ALL_TG_PT
	APTPL        bool
	SpecifyPorts []TransportID // SPEC_I_PT; nil without

	// Of REGISTER AND MOVE.
	Unregister bool
	MovePort   uint16 // relative target port identifier
	MoveTo     TransportID
}

// ParsePersistentOut reads the CDB fields and parameter list of PERSISTENT
// RESERVE OUT (SPC-4 6.14). An error with InCDB set is one of the CDB.
func ParsePersistentOut(cdb CDB, list []byte) (o PersistentOut, inCDB bool, e *ParamError) {
	o.Action = cdb.ServiceAction()
	o.Type = ReservationType(cdb[2] & 0xF)
	if cdb[2]>>4 != reservationScopeLU && usesType(o.Action) {
		return o, true, &ParamError{Byte: 2, Bit: 7}
	}
	if usesType(o.Action) && !o.Type.Valid() {
		return o, true, &ParamError{Byte: 2, Bit: 3}
	}
	if o.Action == SARegisterMove {
		e = o.parseMove(list)
		return o, false, e
	}
	if len(list) < persistentListLen {
		return o, false, &ParamError{Length: true}
	}
	o.Key = binary.BigEndian.Uint64(list[0:])
	o.ActionKey = binary.BigEndian.Uint64(list[8:])
	flags := list[persistentFlagsAt]
	if o.Action == SARegister || o.Action == SARegisterIgnore {
		o.APTPL = flags&persistentFlagAPTPL != 0
		o.AllPorts = flags&persistentFlagAllTGPT != 0
	}
	switch {
	case flags&persistentFlagSpecIPT == 0:
		// SPC-4 6.14.1: without SPEC_I_PT the list is 24 bytes.
		if len(list) != persistentListLen {
			return o, false, &ParamError{Length: true}
		}
	case o.Action != SARegister:
		// SPC-4 6.14.3: REGISTER AND IGNORE EXISTING KEY refuses it.
		return o, false, &ParamError{Byte: persistentFlagsAt, Bit: 3}
	default:
		e = o.parseSpecified(list)
	}
	return o, false, e
}

// usesType tells the service actions that have a scope and type.
func usesType(action uint8) bool {
	return action == SAReserve || action == SARelease || action == SAPreempt || action == SAPreemptAbort
}

func (o *PersistentOut) parseSpecified(list []byte) *ParamError {
	if len(list) < persistentTransportIDsAt {
		return &ParamError{Length: true}
	}
	n := uint64(binary.BigEndian.Uint32(list[24:]))
	if n != uint64(len(list)-persistentTransportIDsAt) {
		return &ParamError{Length: true}
	}
	o.SpecifyPorts = []TransportID{}
	for at := persistentTransportIDsAt; at < len(list); {
		t, used, e := ParseTransportID(list[at:])
		if e != nil {
			e.Byte += at
			return e
		}
		o.SpecifyPorts = append(o.SpecifyPorts, t)
		at += used
	}
	return nil
}

func (o *PersistentOut) parseMove(list []byte) *ParamError {
	if len(list) < persistentMoveHeader {
		return &ParamError{Length: true}
	}
	o.Key = binary.BigEndian.Uint64(list[0:])
	o.ActionKey = binary.BigEndian.Uint64(list[8:])
	flags := list[persistentMoveFlagsAt]
	o.Unregister = flags&persistentFlagUnregister != 0
	o.APTPL = flags&persistentFlagAPTPL != 0
	o.MovePort = binary.BigEndian.Uint16(list[18:])
	n := uint64(binary.BigEndian.Uint32(list[persistentMoveTransportLengthAt:]))
	if n != uint64(len(list)-persistentMoveHeader) {
		return &ParamError{Length: true}
	}
	t, used, e := ParseTransportID(list[persistentMoveHeader:])
	if e != nil {
		e.Byte += persistentMoveHeader
		return e
	}
	if persistentMoveHeader+used != len(list) {
		return &ParamError{Length: true}
	}
	o.MoveTo = t
	return nil
}

// Append appends the parameter list, as an initiator makes it.
func (o PersistentOut) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, o.Key)
	b = binary.BigEndian.AppendUint64(b, o.ActionKey)
	if o.Action == SARegisterMove {
		b = append(b, 0, bit(o.Unregister, persistentFlagUnregister)|bit(o.APTPL, persistentFlagAPTPL))
		b = binary.BigEndian.AppendUint16(b, o.MovePort)
		id := o.MoveTo.Append(nil)
		b = binary.BigEndian.AppendUint32(b, uint32(len(id)))
		return append(b, id...)
	}
	b = append(b, 0, 0, 0, 0)
	b = append(b, bit(o.SpecifyPorts != nil, persistentFlagSpecIPT)|bit(o.AllPorts, persistentFlagAllTGPT)|
		bit(o.APTPL, persistentFlagAPTPL), 0, 0, 0)
	if o.SpecifyPorts == nil {
		return b
	}
	var ids []byte
	for _, t := range o.SpecifyPorts {
		ids = t.Append(ids)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(ids)))
	return append(b, ids...)
}

func bit(on bool, mask uint8) uint8 {
	if on {
		return mask
	}
	return 0
}

// AppendReadKeys appends the parameter data of READ KEYS (SPC-4 6.13.2).
func AppendReadKeys(b []byte, generation uint32, keys []uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, generation)
	b = binary.BigEndian.AppendUint32(b, uint32(8*len(keys)))
	for _, k := range keys {
		b = binary.BigEndian.AppendUint64(b, k)
	}
	return b
}

// AppendReadReservation appends the parameter data of READ RESERVATION
// (SPC-4 6.13.3). key is zero for the All Registrants types.
func AppendReadReservation(b []byte, generation uint32, t ReservationType, key uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, generation)
	if t == NoReservation {
		return binary.BigEndian.AppendUint32(b, 0)
	}
	b = binary.BigEndian.AppendUint32(b, 16)
	b = binary.BigEndian.AppendUint64(b, key)
	return append(b, 0, 0, 0, 0, 0, reservationScopeLU<<4|uint8(t), 0, 0)
}

// AppendReportCapabilities appends the parameter data of REPORT CAPABILITIES
// (SPC-4 6.13.4): CRH, SIP_C, ATP_C, PTPL_C; PTPL_A as given; all types.
func AppendReportCapabilities(b []byte, ptplActivated bool) []byte {
	return append(b, 0, 8,
		0x10|0x08|0x04|0x01,                // CRH, SIP_C, ATP_C, PTPL_C
		0x80|0x10|bit(ptplActivated, 0x01), // TMV, ALLOW COMMANDS 001b, PTPL_A
		0x80|0x40|0x20|0x08|0x02, 0x01,     // WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; EX_AC_AR
		0, 0)
}

// FullStatus is one full status descriptor of READ FULL STATUS.
type FullStatus struct {
	Key        uint64
	Holder     bool
	Type       ReservationType // of the holder
	AllPorts   bool
	TargetPort uint16 // without AllPorts
	Initiator  TransportID
}

// AppendReadFullStatus appends the parameter data of READ FULL STATUS
// (SPC-4 6.13.5).
func AppendReadFullStatus(b []byte, generation uint32, list []FullStatus) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint32(b, generation)
	b = append(b, 0, 0, 0, 0)
	for _, f := range list {
		b = binary.BigEndian.AppendUint64(b, f.Key)
		b = append(b, 0, 0, 0, 0, bit(f.Holder, 0x01)|bit(f.AllPorts, 0x02))
		st := uint8(0)
		if f.Holder {
			st = reservationScopeLU<<4 | uint8(f.Type)
		}
		b = append(b, st, 0, 0, 0, 0)
		port := f.TargetPort
		if f.AllPorts {
			port = 0
		}
		b = binary.BigEndian.AppendUint16(b, port)
		id := f.Initiator.Append(nil)
		b = binary.BigEndian.AppendUint32(b, uint32(len(id)))
		b = append(b, id...)
	}
	binary.BigEndian.PutUint32(b[start+4:], uint32(len(b)-start-8))
	return b
}
