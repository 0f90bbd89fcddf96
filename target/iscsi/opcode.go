package iscsi

import "fmt"

// Opcode is the type of a PDU (section 11.2.1.2), 6 bits.
type Opcode uint8

// Initiator opcodes.
const (
	OpNOPOut       Opcode = 0x00
	OpSCSICommand  Opcode = 0x01
	OpTaskRequest  Opcode = 0x02
	OpLoginRequest Opcode = 0x03
	OpTextRequest  Opcode = 0x04
	OpDataOut      Opcode = 0x05
	OpLogoutReq    Opcode = 0x06
	OpSNACK        Opcode = 0x10
)

// Target opcodes.
const (
	OpNOPIn         Opcode = 0x20
	OpSCSIResponse  Opcode = 0x21
	OpTaskResponse  Opcode = 0x22
	OpLoginResponse Opcode = 0x23
	OpTextResponse  Opcode = 0x24
	OpDataIn        Opcode = 0x25
	OpLogoutResp    Opcode = 0x26
	OpR2T           Opcode = 0x31
	OpAsyncMessage  Opcode = 0x32
	OpReject        Opcode = 0x3f
)

var opcodeNames = [64]string{
	OpNOPOut:        "NOP-Out",
	OpSCSICommand:   "SCSI Command",
	OpTaskRequest:   "Task Management Function Request",
	OpLoginRequest:  "Login Request",
	OpTextRequest:   "Text Request",
	OpDataOut:       "SCSI Data-Out",
	OpLogoutReq:     "Logout Request",
	OpSNACK:         "SNACK Request",
	OpNOPIn:         "NOP-In",
	OpSCSIResponse:  "SCSI Response",
	OpTaskResponse:  "Task Management Function Response",
	OpLoginResponse: "Login Response",
	OpTextResponse:  "Text Response",
	OpDataIn:        "SCSI Data-In",
	OpLogoutResp:    "Logout Response",
	OpR2T:           "R2T",
	OpAsyncMessage:  "Asynchronous Message",
	OpReject:        "Reject",
}

func (o Opcode) String() string { return name(opcodeNames[:], uint8(o), "opcode") }

// Known reports whether the opcode is one of the constants above.
func (o Opcode) Known() bool { return int(o) < len(opcodeNames) && opcodeNames[o] != "" }

// FromInitiator reports whether the opcode is one that an initiator sends.
func (o Opcode) FromInitiator() bool { return o < 0x20 }

// name is names[v], or what v is and its number.
func name(names []string, v uint8, what string) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return fmt.Sprintf("%s 0x%02x", what, v)
}
