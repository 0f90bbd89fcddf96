package scsi

import "fmt"

// Opcode is a SCSI operation code.
type Opcode uint8

const (
	OpTestUnitReady     Opcode = 0x00
	OpRequestSense      Opcode = 0x03
	OpRead6             Opcode = 0x08
	OpWrite6            Opcode = 0x0A
	OpInquiry           Opcode = 0x12
	OpModeSelect6       Opcode = 0x15
	OpReserve6          Opcode = 0x16
	OpRelease6          Opcode = 0x17
	OpModeSense6        Opcode = 0x1A
	OpStartStopUnit     Opcode = 0x1B
	OpReceiveDiagnostic Opcode = 0x1C
	OpSendDiagnostic    Opcode = 0x1D
	OpPreventAllow      Opcode = 0x1E
	OpReadCapacity10    Opcode = 0x25
	OpRead10            Opcode = 0x28
	OpWrite10           Opcode = 0x2A
	OpWriteVerify10     Opcode = 0x2E
	OpVerify10          Opcode = 0x2F
	OpPrefetch10        Opcode = 0x34
	OpSyncCache10       Opcode = 0x35
	OpReadDefectData10  Opcode = 0x37
	OpWriteSame10       Opcode = 0x41
	OpUnmap             Opcode = 0x42
	OpLogSense          Opcode = 0x4D
	OpModeSelect10      Opcode = 0x55
	OpReserve10         Opcode = 0x56
	OpRelease10         Opcode = 0x57
	OpModeSense10       Opcode = 0x5A
	OpPersistentIn      Opcode = 0x5E
	OpPersistentOut     Opcode = 0x5F
	OpATAPassThrough16  Opcode = 0x85
	OpRead16            Opcode = 0x88
	OpCompareAndWrite   Opcode = 0x89
	OpWrite16           Opcode = 0x8A
	OpOrWrite16         Opcode = 0x8B
	OpWriteVerify16     Opcode = 0x8E
	OpVerify16          Opcode = 0x8F
	OpPrefetch16        Opcode = 0x90
	OpSyncCache16       Opcode = 0x91
	OpWriteSame16       Opcode = 0x93
	OpWriteAtomic16     Opcode = 0x9C
	OpServiceActionIn16 Opcode = 0x9E
	OpReportLUNs        Opcode = 0xA0
	OpMaintenanceIn     Opcode = 0xA3
	OpMaintenanceOut    Opcode = 0xA4
	OpRead12            Opcode = 0xA8
	OpWrite12           Opcode = 0xAA
	OpWriteVerify12     Opcode = 0xAE
	OpVerify12          Opcode = 0xAF
	OpReadDefectData12  Opcode = 0xB7
)

func (o Opcode) String() string {
	for i := range Commands {
		if Commands[i].Op == o {
			return Commands[i].Name
		}
	}
	return fmt.Sprintf("opcode %02xh", uint8(o))
}

// Service actions.
const (
	SAReadCapacity16   uint8 = 0x10 // of SERVICE ACTION IN (16)
	SAGetLBAStatus     uint8 = 0x12
	SAReportTPG        uint8 = 0x0A // of MAINTENANCE IN, and SET of MAINTENANCE OUT
	SAReportOpcodes    uint8 = 0x0C
	SAReportTMFs       uint8 = 0x0D
	SAReadKeys         uint8 = 0x00 // of PERSISTENT RESERVE IN
	SAReadReservation  uint8 = 0x01
	SAReportCapability uint8 = 0x02
	SAReadFullStatus   uint8 = 0x03
	SARegister         uint8 = 0x00 // of PERSISTENT RESERVE OUT
	SAReserve          uint8 = 0x01
	SARelease          uint8 = 0x02
	SAClear            uint8 = 0x03
	SAPreempt          uint8 = 0x04
	SAPreemptAbort     uint8 = 0x05
	SARegisterIgnore   uint8 = 0x06
	SARegisterMove     uint8 = 0x07
)

// Kind says which handler of the device server runs a command. Commands that
// differ only in the width of their fields share one.
type Kind uint8

const (
	KindTestUnitReady Kind = iota
	KindRequestSense
	KindInquiry
	KindReportLUNs
	KindRead
	KindWrite
	KindWriteAtomic
	KindOrWrite
	KindVerify
	KindWriteVerify
	KindCompareAndWrite
	KindWriteSame
	KindUnmap
	KindSyncCache
	KindPrefetch
	KindReadCapacity10
	KindReadCapacity16
	KindGetLBAStatus
	KindModeSense
	KindModeSelect
	KindLogSense
	KindStartStop
	KindPreventAllow
	KindReadDefectData
	KindSendDiagnostic
	KindReceiveDiagnostic
	KindReportTPG
	KindSetTPG
	KindReportOpcodes
	KindReportTMFs
	KindPersistentIn
	KindPersistentOut
	KindReserve
	KindRelease
	KindCount // the number of kinds
)

// Direction is which way a command moves data.
type Direction uint8

const (
	DirNone Direction = iota
	DirIn             // to the initiator
	DirOut            // from the initiator
)

// Conflict is the class of a command in the reservation conflict tables
// (SPC-4 tables 65 and 66, SBC-3 table 13; SPC-2 tables 9 and 10).
type Conflict uint8

const (
	ConflictNever   Conflict = iota // allowed under every reservation
	ConflictLegacy                  // allowed under persistent reservations, not under RESERVE of another
	ConflictRead                    // reads the medium or the unit's state
	ConflictWrite                   // changes the medium or the unit's state
	ConflictStart                   // START STOP UNIT: allowed if it starts, else as a write
	ConflictPrevent                 // PREVENT ALLOW: allowed if it allows, else as a write
	ConflictPROut                   // decided by the reservation state machine itself
	ConflictReserve                 // RESERVE and RELEASE: decided by their handler
	ConflictCount
)

// NoServiceAction marks a row whose opcode has no service actions.
const NoServiceAction = -1

// Command is one row of the command table: all there is to say about a
// command before a logical unit looks at it.
type Command struct {
	Op       Opcode
	SA       int16 // service action, or NoServiceAction
	Name     string
	Len      uint8 // CDB length in bytes
	Dir      Direction
	Kind     Kind
	Conflict Conflict
	Timeout  uint16 // recommended timeout, seconds (RCTD)

	// Usage is the CDB usage data of REPORT SUPPORTED OPERATION CODES
	// (SPC-4 6.35.3): the opcode, then one bit for each bit of the CDB that the
	// device server evaluates; the service action is there by value.
	Usage []byte
}

// usage parses the hexadecimal usage data of a row. The table is checked by a test.
func usage(hex string) []byte {
	b := make([]byte, 0, len(hex)/2)
	var hi byte
	half := false
	for _, r := range []byte(hex) {
		var v byte
		switch {
		case r >= '0' && r <= '9':
			v = r - '0'
		case r >= 'a' && r <= 'f':
			v = r - 'a' + 10
		default:
			continue
		}
		if half {
			b = append(b, hi<<4|v)
		}
		hi, half = v, !half
	}
	return b
}

const noSA = NoServiceAction

// Commands is every command that petal supports, in the order of the opcode
// and service action. It is not to be modified.
var Commands = []Command{
	{OpTestUnitReady, noSA, "TEST UNIT READY", 6, DirNone, KindTestUnitReady, ConflictLegacy, 10, usage("00 00 00 00 00 04")},
	{OpRequestSense, noSA, "REQUEST SENSE", 6, DirIn, KindRequestSense, ConflictNever, 10, usage("03 01 00 00 ff 04")},
	{OpRead6, noSA, "READ (6)", 6, DirIn, KindRead, ConflictRead, 30, usage("08 1f ff ff ff 04")},
	{OpWrite6, noSA, "WRITE (6)", 6, DirOut, KindWrite, ConflictWrite, 30, usage("0a 1f ff ff ff 04")},
	{OpInquiry, noSA, "INQUIRY", 6, DirIn, KindInquiry, ConflictNever, 10, usage("12 01 ff ff ff 04")},
	{OpModeSelect6, noSA, "MODE SELECT (6)", 6, DirOut, KindModeSelect, ConflictWrite, 10, usage("15 11 00 00 ff 04")},
	{OpReserve6, noSA, "RESERVE (6)", 6, DirNone, KindReserve, ConflictReserve, 10, usage("16 00 00 00 00 04")},
	{OpRelease6, noSA, "RELEASE (6)", 6, DirNone, KindRelease, ConflictReserve, 10, usage("17 00 00 00 00 04")},
	{OpModeSense6, noSA, "MODE SENSE (6)", 6, DirIn, KindModeSense, ConflictRead, 10, usage("1a 08 ff ff ff 04")},
	{OpStartStopUnit, noSA, "START STOP UNIT", 6, DirNone, KindStartStop, ConflictStart, 30, usage("1b 01 00 0f f7 04")},
	{OpReceiveDiagnostic, noSA, "RECEIVE DIAGNOSTIC RESULTS", 6, DirIn, KindReceiveDiagnostic, ConflictRead, 10, usage("1c 01 ff ff ff 04")},
	{OpSendDiagnostic, noSA, "SEND DIAGNOSTIC", 6, DirOut, KindSendDiagnostic, ConflictWrite, 10, usage("1d f7 00 ff ff 04")},
	{OpPreventAllow, noSA, "PREVENT ALLOW MEDIUM REMOVAL", 6, DirNone, KindPreventAllow, ConflictPrevent, 10, usage("1e 00 00 00 03 04")},
	{OpReadCapacity10, noSA, "READ CAPACITY (10)", 10, DirIn, KindReadCapacity10, ConflictNever, 10, usage("25 00 ff ff ff ff 00 00 01 04")},
	{OpRead10, noSA, "READ (10)", 10, DirIn, KindRead, ConflictRead, 30, usage("28 18 ff ff ff ff 00 ff ff 04")},
	{OpWrite10, noSA, "WRITE (10)", 10, DirOut, KindWrite, ConflictWrite, 30, usage("2a 18 ff ff ff ff 00 ff ff 04")},
	{OpWriteVerify10, noSA, "WRITE AND VERIFY (10)", 10, DirOut, KindWriteVerify, ConflictWrite, 60, usage("2e 16 ff ff ff ff 00 ff ff 04")},
	{OpVerify10, noSA, "VERIFY (10)", 10, DirOut, KindVerify, ConflictRead, 60, usage("2f 16 ff ff ff ff 00 ff ff 04")},
	{OpPrefetch10, noSA, "PRE-FETCH (10)", 10, DirNone, KindPrefetch, ConflictRead, 30, usage("34 02 ff ff ff ff 00 ff ff 04")},
	{OpSyncCache10, noSA, "SYNCHRONIZE CACHE (10)", 10, DirNone, KindSyncCache, ConflictWrite, 60, usage("35 02 ff ff ff ff 00 ff ff 04")},
	{OpReadDefectData10, noSA, "READ DEFECT DATA (10)", 10, DirIn, KindReadDefectData, ConflictRead, 10, usage("37 00 1f 00 00 00 00 ff ff 04")},
	{OpWriteSame10, noSA, "WRITE SAME (10)", 10, DirOut, KindWriteSame, ConflictWrite, 120, usage("41 18 ff ff ff ff 00 ff ff 04")},
	{OpUnmap, noSA, "UNMAP", 10, DirOut, KindUnmap, ConflictWrite, 120, usage("42 01 00 00 00 00 00 ff ff 04")},
	{OpLogSense, noSA, "LOG SENSE", 10, DirIn, KindLogSense, ConflictNever, 10, usage("4d 01 ff ff 00 ff ff ff ff 04")},
	{OpModeSelect10, noSA, "MODE SELECT (10)", 10, DirOut, KindModeSelect, ConflictWrite, 10, usage("55 11 00 00 00 00 00 ff ff 04")},
	{OpReserve10, noSA, "RESERVE (10)", 10, DirNone, KindReserve, ConflictReserve, 10, usage("56 12 00 00 00 00 00 ff ff 04")},
	{OpRelease10, noSA, "RELEASE (10)", 10, DirNone, KindRelease, ConflictReserve, 10, usage("57 12 00 00 00 00 00 ff ff 04")},
	{OpModeSense10, noSA, "MODE SENSE (10)", 10, DirIn, KindModeSense, ConflictRead, 10, usage("5a 18 ff ff 00 00 00 ff ff 04")},
	{OpPersistentIn, 0x00, "PERSISTENT RESERVE IN, READ KEYS", 10, DirIn, KindPersistentIn, ConflictLegacy, 10, usage("5e 00 00 00 00 00 00 ff ff 04")},
	{OpPersistentIn, 0x01, "PERSISTENT RESERVE IN, READ RESERVATION", 10, DirIn, KindPersistentIn, ConflictLegacy, 10, usage("5e 01 00 00 00 00 00 ff ff 04")},
	{OpPersistentIn, 0x02, "PERSISTENT RESERVE IN, REPORT CAPABILITIES", 10, DirIn, KindPersistentIn, ConflictLegacy, 10, usage("5e 02 00 00 00 00 00 ff ff 04")},
	{OpPersistentIn, 0x03, "PERSISTENT RESERVE IN, READ FULL STATUS", 10, DirIn, KindPersistentIn, ConflictLegacy, 10, usage("5e 03 00 00 00 00 00 ff ff 04")},
	{OpPersistentOut, 0x00, "PERSISTENT RESERVE OUT, REGISTER", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 00 ff 00 00 ff ff ff ff 04")},
	{OpPersistentOut, 0x01, "PERSISTENT RESERVE OUT, RESERVE", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 01 ff 00 00 ff ff ff ff 04")},
	{OpPersistentOut, 0x02, "PERSISTENT RESERVE OUT, RELEASE", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 02 ff 00 00 ff ff ff ff 04")},
	{OpPersistentOut, 0x03, "PERSISTENT RESERVE OUT, CLEAR", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 03 ff 00 00 ff ff ff ff 04")},
	{OpPersistentOut, 0x04, "PERSISTENT RESERVE OUT, PREEMPT", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 04 ff 00 00 ff ff ff ff 04")},
	{OpPersistentOut, 0x05, "PERSISTENT RESERVE OUT, PREEMPT AND ABORT", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 05 ff 00 00 ff ff ff ff 04")},
	{OpPersistentOut, 0x06, "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 06 ff 00 00 ff ff ff ff 04")},
	{OpPersistentOut, 0x07, "PERSISTENT RESERVE OUT, REGISTER AND MOVE", 10, DirOut, KindPersistentOut, ConflictPROut, 30, usage("5f 07 ff 00 00 ff ff ff ff 04")},
	{OpRead16, noSA, "READ (16)", 16, DirIn, KindRead, ConflictRead, 30, usage("88 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpCompareAndWrite, noSA, "COMPARE AND WRITE", 16, DirOut, KindCompareAndWrite, ConflictWrite, 30, usage("89 18 ff ff ff ff ff ff ff ff 00 00 00 ff 00 04")},
	{OpWrite16, noSA, "WRITE (16)", 16, DirOut, KindWrite, ConflictWrite, 30, usage("8a 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpOrWrite16, noSA, "ORWRITE (16)", 16, DirOut, KindOrWrite, ConflictWrite, 60, usage("8b 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpWriteVerify16, noSA, "WRITE AND VERIFY (16)", 16, DirOut, KindWriteVerify, ConflictWrite, 60, usage("8e 16 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpVerify16, noSA, "VERIFY (16)", 16, DirOut, KindVerify, ConflictRead, 60, usage("8f 16 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpPrefetch16, noSA, "PRE-FETCH (16)", 16, DirNone, KindPrefetch, ConflictRead, 30, usage("90 02 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpSyncCache16, noSA, "SYNCHRONIZE CACHE (16)", 16, DirNone, KindSyncCache, ConflictWrite, 60, usage("91 02 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpWriteSame16, noSA, "WRITE SAME (16)", 16, DirOut, KindWriteSame, ConflictWrite, 120, usage("93 19 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpWriteAtomic16, noSA, "WRITE ATOMIC (16)", 16, DirOut, KindWriteAtomic, ConflictWrite, 30, usage("9c 18 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpServiceActionIn16, 0x10, "READ CAPACITY (16)", 16, DirIn, KindReadCapacity16, ConflictNever, 10, usage("9e 10 ff ff ff ff ff ff ff ff ff ff ff ff 01 04")},
	{OpServiceActionIn16, 0x12, "GET LBA STATUS", 16, DirIn, KindGetLBAStatus, ConflictRead, 30, usage("9e 12 ff ff ff ff ff ff ff ff ff ff ff ff 00 04")},
	{OpReportLUNs, noSA, "REPORT LUNS", 12, DirIn, KindReportLUNs, ConflictNever, 10, usage("a0 00 ff 00 00 00 ff ff ff ff 00 04")},
	{OpMaintenanceIn, 0x0A, "REPORT TARGET PORT GROUPS", 12, DirIn, KindReportTPG, ConflictNever, 10, usage("a3 ea 00 00 00 00 ff ff ff ff 00 04")},
	{OpMaintenanceIn, 0x0C, "REPORT SUPPORTED OPERATION CODES", 12, DirIn, KindReportOpcodes, ConflictLegacy, 10, usage("a3 0c 87 ff ff ff ff ff ff ff 00 04")},
	{OpMaintenanceIn, 0x0D, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", 12, DirIn, KindReportTMFs, ConflictLegacy, 10, usage("a3 0d 80 00 00 00 ff ff ff ff 00 04")},
	{OpMaintenanceOut, 0x0A, "SET TARGET PORT GROUPS", 12, DirOut, KindSetTPG, ConflictWrite, 10, usage("a4 0a 00 00 00 00 ff ff ff ff 00 04")},
	{OpRead12, noSA, "READ (12)", 12, DirIn, KindRead, ConflictRead, 30, usage("a8 18 ff ff ff ff ff ff ff ff 00 04")},
	{OpWrite12, noSA, "WRITE (12)", 12, DirOut, KindWrite, ConflictWrite, 30, usage("aa 18 ff ff ff ff ff ff ff ff 00 04")},
	{OpWriteVerify12, noSA, "WRITE AND VERIFY (12)", 12, DirOut, KindWriteVerify, ConflictWrite, 60, usage("ae 16 ff ff ff ff ff ff ff ff 00 04")},
	{OpVerify12, noSA, "VERIFY (12)", 12, DirOut, KindVerify, ConflictRead, 60, usage("af 16 ff ff ff ff ff ff ff ff 00 04")},
	{OpReadDefectData12, noSA, "READ DEFECT DATA (12)", 12, DirIn, KindReadDefectData, ConflictRead, 10, usage("b7 1f ff ff ff ff ff ff ff ff 00 04")},
}

// byOpcode[op] is the range of Commands with that opcode, empty if it is not
// supported. Built once from Commands; read-only.
var byOpcode = func() (index [256][]Command) {
	for lo := 0; lo < len(Commands); {
		hi := lo + 1
		for hi < len(Commands) && Commands[hi].Op == Commands[lo].Op {
			hi++
		}
		index[Commands[lo].Op] = Commands[lo:hi:hi]
		lo = hi
	}
	return index
}()

// Lookup finds the row of a command. If there is none, or the CDB is shorter
// than the row says, cmd is nil and code says why: CodeInvalidOpcode, or
// CodeInvalidFieldInCDB for an unknown service action or a short CDB.
func Lookup(cdb CDB) (cmd *Command, code Code) {
	if len(cdb) == 0 {
		return nil, CodeInvalidOpcode
	}
	rows := byOpcode[cdb[0]]
	if len(rows) == 0 {
		return nil, CodeInvalidOpcode
	}
	if len(cdb) < int(rows[0].Len) {
		return nil, CodeInvalidFieldInCDB
	}
	if rows[0].SA == NoServiceAction {
		return &rows[0], CodeNone
	}
	for i := range rows {
		if rows[i].SA == int16(cdb.ServiceAction()) {
			return &rows[i], CodeNone
		}
	}
	return nil, CodeInvalidFieldInCDB
}

// Rows returns the rows of an opcode: none, one, or one for each service action.
func Rows(op Opcode) []Command { return byOpcode[op] }
