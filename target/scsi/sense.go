package scsi

import (
	"encoding/binary"
	"fmt"
)

// SenseKey is the sense key of sense data (SPC-4 4.5.6).
type SenseKey uint8

const (
	KeyNoSense        SenseKey = 0x0
	KeyRecoveredError SenseKey = 0x1
	KeyNotReady       SenseKey = 0x2
	KeyMediumError    SenseKey = 0x3
	KeyHardwareError  SenseKey = 0x4
	KeyIllegalRequest SenseKey = 0x5
	KeyUnitAttention  SenseKey = 0x6
	KeyDataProtect    SenseKey = 0x7
	KeyAbortedCommand SenseKey = 0xB
	KeyMiscompare     SenseKey = 0xE
)

var senseKeyNames = [16]string{
	KeyNoSense:        "NO SENSE",
	KeyRecoveredError: "RECOVERED ERROR",
	KeyNotReady:       "NOT READY",
	KeyMediumError:    "MEDIUM ERROR",
	KeyHardwareError:  "HARDWARE ERROR",
	KeyIllegalRequest: "ILLEGAL REQUEST",
	KeyUnitAttention:  "UNIT ATTENTION",
	KeyDataProtect:    "DATA PROTECT",
	KeyAbortedCommand: "ABORTED COMMAND",
	KeyMiscompare:     "MISCOMPARE",
}

func (k SenseKey) String() string {
	if k < 16 && senseKeyNames[k] != "" {
		return senseKeyNames[k]
	}
	return fmt.Sprintf("sense key %Xh", uint8(k))
}

// Code is an additional sense code (high byte) with its qualifier (low byte),
// SPC-4 annex F.
type Code uint16

const (
	CodeNone                    Code = 0x0000
	CodeNotReadyTransition      Code = 0x040A // LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION
	CodeNotReadyStandby         Code = 0x040B // ..., TARGET PORT IN STANDBY STATE
	CodeNotReadyUnavailable     Code = 0x040C // ..., TARGET PORT IN UNAVAILABLE STATE
	CodeInvalidFieldInIU        Code = 0x0E03 // INVALID FIELD IN COMMAND INFORMATION UNIT
	CodeUnrecoveredRead         Code = 0x1100 // UNRECOVERED READ ERROR
	CodeParameterListLength     Code = 0x1A00 // PARAMETER LIST LENGTH ERROR
	CodeDefectListNotFound      Code = 0x1C00 // DEFECT LIST NOT FOUND
	CodeMiscompare              Code = 0x1D00 // MISCOMPARE DURING VERIFY OPERATION
	CodeInvalidOpcode           Code = 0x2000 // INVALID COMMAND OPERATION CODE
	CodeLBAOutOfRange           Code = 0x2100 // LOGICAL BLOCK ADDRESS OUT OF RANGE
	CodeInvalidFieldInCDB       Code = 0x2400
	CodeLUNotSupported          Code = 0x2500 // LOGICAL UNIT NOT SUPPORTED
	CodeInvalidFieldInParams    Code = 0x2600 // INVALID FIELD IN PARAMETER LIST
	CodeInvalidRelease          Code = 0x2604 // INVALID RELEASE OF PERSISTENT RESERVATION
	CodeWriteProtected          Code = 0x2700
	CodeSpaceAllocFailed        Code = 0x2707 // SPACE ALLOCATION FAILED WRITE PROTECT
	CodePowerOnOrReset          Code = 0x2900 // POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
	CodeBusReset                Code = 0x2902 // SCSI BUS RESET OCCURRED
	CodeBusDeviceReset          Code = 0x2903 // BUS DEVICE RESET FUNCTION OCCURRED
	CodeNexusLoss               Code = 0x2907 // I_T NEXUS LOSS OCCURRED
	CodeModeParametersChanged   Code = 0x2A01
	CodeReservationsPreempted   Code = 0x2A03
	CodeReservationsReleased    Code = 0x2A04
	CodeRegistrationsPreempted  Code = 0x2A05
	CodeALUAStateChanged        Code = 0x2A06 // ASYMMETRIC ACCESS STATE CHANGED
	CodeCapacityChanged         Code = 0x2A09 // CAPACITY DATA HAS CHANGED
	CodeCommandsCleared         Code = 0x2F00 // COMMANDS CLEARED BY ANOTHER INITIATOR
	CodeSoftThreshold           Code = 0x3807 // THIN PROVISIONING SOFT THRESHOLD REACHED
	CodeSavingNotSupported      Code = 0x3900 // SAVING PARAMETERS NOT SUPPORTED
	CodeReportedLUNsChanged     Code = 0x3F0E // REPORTED LUNS DATA HAS CHANGED
	CodeInternalTargetFailure   Code = 0x4400
	CodeInsufficientRegResource Code = 0x5504 // INSUFFICIENT REGISTRATION RESOURCES
	CodeMediumRemovalPrevented  Code = 0x5302
)

// ASC is the additional sense code.
func (c Code) ASC() uint8 { return uint8(c >> 8) }

// ASCQ is the additional sense code qualifier.
func (c Code) ASCQ() uint8 { return uint8(c) }

func (c Code) String() string { return fmt.Sprintf("%02x/%02x", c.ASC(), c.ASCQ()) }

// Sense is sense data before it is encoded.
type Sense struct {
	Key  SenseKey
	Code Code

	// Info is the INFORMATION field, if HasInfo is set: the LBA of the block
	// in error or, for MISCOMPARE, the byte offset of the first difference.
	Info    uint64
	HasInfo bool

	// Field is the field pointer of an ILLEGAL REQUEST, if HasField is set.
	Field    FieldPointer
	HasField bool
}

// FieldPointer names the field in error (SPC-4 4.5.2.4.2).
type FieldPointer struct {
	InCDB bool   // in the CDB, else in the parameter list
	Byte  uint16 // offset of the byte in error
	Bit   int8   // leftmost bit of the field in error, or -1: the whole byte
}

func (s Sense) String() string {
	return fmt.Sprintf("%v %v", s.Key, s.Code)
}

// SenseMax is the greatest length that Sense.Append adds.
const SenseMax = 8 + 12 + 8

// Append appends the sense data of a current error to b: in descriptor format
// (response code 72h, SPC-4 4.5.2) or in fixed format (70h, 4.5.3).
func (s Sense) Append(b []byte, descriptor bool) []byte {
	if descriptor {
		return s.appendDescriptor(b)
	}
	return s.appendFixed(b)
}

func (s Sense) appendFixed(b []byte) []byte {
	var d [18]byte
	d[0] = 0x70
	// The field holds four bytes; a greater value can't be told in this format.
	if s.HasInfo && s.Info <= 0xFFFFFFFF {
		d[0] |= 0x80 // VALID
		binary.BigEndian.PutUint32(d[3:], uint32(s.Info))
	}
	d[2] = uint8(s.Key)
	d[7] = uint8(len(d) - 8)
	binary.BigEndian.PutUint16(d[12:], uint16(s.Code))
	if s.HasField {
		s.Field.put(d[15:18])
	}
	return append(b, d[:]...)
}

func (s Sense) appendDescriptor(b []byte) []byte {
	start := len(b)
	b = append(b, 0x72, uint8(s.Key), s.Code.ASC(), s.Code.ASCQ(), 0, 0, 0, 0)
	if s.HasInfo {
		b = append(b, 0x00, 0x0A, 0x80, 0)
		b = binary.BigEndian.AppendUint64(b, s.Info)
	}
	if s.HasField {
		b = append(b, 0x02, 0x06, 0, 0, 0, 0, 0, 0)
		s.Field.put(b[len(b)-4:])
	}
	b[start+7] = uint8(len(b) - start - 8)
	return b
}

// put writes the three sense-key-specific bytes.
func (f FieldPointer) put(d []byte) {
	d[0] = 0x80 // SKSV
	if f.InCDB {
		d[0] |= 0x40 // C/D
	}
	if f.Bit >= 0 {
		d[0] |= 0x08 | uint8(f.Bit)&7 // BPV, BIT POINTER
	}
	binary.BigEndian.PutUint16(d[1:], f.Byte)
}

// ParseSense decodes sense data of either format, as an initiator does.
// ok is false if b holds no sense data that it knows.
func ParseSense(b []byte) (s Sense, ok bool) {
	if len(b) < 8 {
		return s, false
	}
	switch b[0] & 0x7F {
	case 0x70, 0x71:
		return parseFixed(b)
	case 0x72, 0x73:
		return parseDescriptors(b)
	}
	return s, false
}

func parseFixed(b []byte) (s Sense, ok bool) {
	s.Key = SenseKey(b[2] & 0xF)
	if b[0]&0x80 != 0 {
		s.Info, s.HasInfo = uint64(binary.BigEndian.Uint32(b[3:])), true
	}
	if len(b) >= 14 {
		s.Code = Code(binary.BigEndian.Uint16(b[12:]))
	}
	if len(b) >= 18 && b[15]&0x80 != 0 && s.Key == KeyIllegalRequest {
		s.Field, s.HasField = getFieldPointer(b[15:]), true
	}
	return s, true
}

func parseDescriptors(b []byte) (s Sense, ok bool) {
	s.Key = SenseKey(b[1] & 0xF)
	s.Code = Code(binary.BigEndian.Uint16(b[2:]))
	rest := b[8:min(len(b), 8+int(b[7]))]
	for len(rest) >= 2 {
		n := 2 + int(rest[1])
		if n > len(rest) {
			break
		}
		switch {
		case rest[0] == 0x00 && n >= 12 && rest[2]&0x80 != 0:
			s.Info, s.HasInfo = binary.BigEndian.Uint64(rest[4:]), true
		case rest[0] == 0x02 && n >= 8 && rest[4]&0x80 != 0:
			s.Field, s.HasField = getFieldPointer(rest[4:]), true
		}
		rest = rest[n:]
	}
	return s, true
}

func getFieldPointer(d []byte) FieldPointer {
	f := FieldPointer{InCDB: d[0]&0x40 != 0, Byte: binary.BigEndian.Uint16(d[1:]), Bit: -1}
	if d[0]&0x08 != 0 {
		f.Bit = int8(d[0] & 7)
	}
	return f
}
