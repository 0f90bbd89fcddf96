package lun

// The contract between a session and the device server.
//
//	session                                    device server (Nexus)
//	  PDU with CDB      -> Nexus.Begin(c)         parse, check, borrow memory
//	  Data-Out          -> fills c.Out            (immediate, unsolicited, R2T)
//	  all data here     -> Nexus.Run(c)           executes; c.Done(c) once
//	  Data-In, status   <- c.In, c.Status, c.Sense
//	  sent              -> Nexus.Finish(c)        memory goes back
//
// A Command is embedded in the session's task and reused: a command on the hot
// path allocates nothing.

// Command is one SCSI command on its way through the device server. The
// session owns it; between Run and Done the device server does.
type Command struct {
	// Set by the session before Begin.
	LUN        uint64         // the 8-byte LUN field, big-endian
	CDB        []byte         // 16 bytes, more with an Extended CDB AHS; not kept after Done
	Expected   int            // ExpectedDataTransferLength of a write-direction command, else 0
	ExpectedIn int            // the same of a read-direction command
	Done       func(*Command) // set once for the life of the Command; must not block

	// Set by Begin. OutLen is what the CDB asks to be transferred from the
	// initiator, in bytes; compared with Expected it gives the residual. Out is
	// where data-out goes: the first bytes of it, at most min(OutLen, Expected).
	// What the initiator sends beyond is thrown away. If the command is already
	// decided (Begin returned Decided) Out is empty, and OutLen is zero but for
	// the one case that Expected ends in the middle of a block.
	Out    [][]byte
	OutLen int

	// Set when Done is called, or by Begin that returns Decided. InLen is how
	// many bytes the CDB asks for and there are; compared with ExpectedIn it
	// gives the residual. In is those of them that the initiator has room for,
	// and perhaps some more: at least the first min(InLen, ExpectedIn). Sense
	// is the sense data without the two-byte length that iSCSI puts in front.
	Status uint8
	In     [][]byte
	InLen  int
	Sense  []byte
	// Drop says that no SCSI status may be sent: the session has to be
	// dropped (the data can't be reached; see INITIATORS: hold, then drop).
	Drop bool

	// OutGot is set by the session before Run: bytes of Out really received.
	OutGot int

	commandState
}

// Verdict is what Begin decided.
type Verdict uint8

const (
	// Wait: fill c.Out (it may be empty), then call Run.
	Wait Verdict = iota
	// Decided: the command has ended in Begin; Status, Sense and In are set
	// and Done is not called. Data-Out that comes all the same is thrown away.
	Decided
)
