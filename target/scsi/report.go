package scsi

import "encoding/binary"

// REPORTING OPTIONS of REPORT SUPPORTED OPERATION CODES (SPC-4 table 253).
const (
	ReportAllCommands   uint8 = 0
	ReportOpcode        uint8 = 1 // an opcode without service actions
	ReportServiceAction uint8 = 2 // an opcode with service actions
	ReportEither        uint8 = 3
)

// timeoutsLen is the length of a command timeouts descriptor.
const timeoutsLen = 12

func appendTimeouts(b []byte, c *Command) []byte {
	b = append(b, 0, timeoutsLen-2, 0, 0)
	b = binary.BigEndian.AppendUint32(b, 0) // nominal: not given
	return binary.BigEndian.AppendUint32(b, uint32(c.Timeout))
}

// AppendAllCommands appends the all_commands parameter data, with command
// timeouts descriptors if rctd.
func AppendAllCommands(b []byte, rctd bool) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	for i := range Commands {
		c := &Commands[i]
		var flags uint8
		if rctd {
			flags |= 0x02 // CTDP
		}
		sa := uint16(0)
		if c.SA != NoServiceAction {
			flags |= 0x01 // SERVACTV
			sa = uint16(c.SA)
		}
		b = append(b, uint8(c.Op), 0)
		b = binary.BigEndian.AppendUint16(b, sa)
		b = append(b, 0, flags, 0, c.Len)
		if rctd {
			b = appendTimeouts(b, c)
		}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// Support field of the one_command parameter data.
const (
	supportNone     = 1
	supportStandard = 3
)

// AppendOneCommand appends the one_command parameter data for an opcode and
// service action. ok is false if the reporting options do not fit the opcode
// (SPC-4 6.35.1: INVALID FIELD IN CDB).
func AppendOneCommand(b []byte, options uint8, op Opcode, sa uint16, rctd bool) (out []byte, ok bool) {
	rows := Rows(op)
	hasSA := len(rows) > 0 && rows[0].SA != NoServiceAction
	switch {
	case options == ReportOpcode && hasSA,
		options == ReportServiceAction && len(rows) > 0 && !hasSA:
		return b, false
	}
	var found *Command
	for i := range rows {
		if rows[i].SA == NoServiceAction && (options != ReportEither || sa == 0) || rows[i].SA == int16(sa) && sa < 32 {
			found = &rows[i]
		}
	}
	if found == nil {
		return append(b, 0, supportNone, 0, 0), true
	}
	flags := uint8(supportStandard)
	if rctd {
		flags |= 0x80 // CTDP
	}
	b = append(b, 0, flags, 0, found.Len)
	b = append(b, found.Usage...)
	if rctd {
		b = appendTimeouts(b, found)
	}
	return b, true
}

// AppendTMFs appends the parameter data of REPORT SUPPORTED TASK MANAGEMENT
// FUNCTIONS: ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET,
// TARGET RESET; with the extended data if repd (SPC-4 6.36).
func AppendTMFs(b []byte, repd bool) []byte {
	b = append(b, 0x80|0x40|0x10|0x08|0x02, 0)
	if !repd {
		return append(b, 0, 0)
	}
	b = append(b, 0, 12)
	b = append(b, 0, 0, 0, 1)               // TMFTMOV
	b = binary.BigEndian.AppendUint32(b, 0) // no long timeout
	return binary.BigEndian.AppendUint32(b, 100)
}
