package session

import "time"

// What a session may take up. The limits on single PDUs are package iscsi's.
const (
	// DefaultDepth is how many commands the window lets in flight.
	DefaultDepth = 128
	// MaxDepth bounds Config.Depth.
	MaxDepth = 1024
	// DefaultBudget is the bytes of data that the commands in flight of one
	// session may borrow from the device server. One command may always borrow
	// lun.MaxTransfer.
	DefaultBudget = 64 << 20
	// maxImmediate bounds the immediate commands (SCSI, task management) in
	// flight beside the window.
	maxImmediate = 64
	// backlogMax is how many bytes of answers may wait behind a socket that
	// takes none before the session stops reading.
	backlogMax = 1 << 20
	// maxSets is how many task sets are remembered without looking which are empty.
	maxSets = 64
	// burstFlush is how many bytes of answers a burst of requests may collect
	// before they are sent in its middle.
	burstFlush = 256 << 10
	// tasksKept is how many idle tasks a session keeps for reuse.
	tasksKept = DefaultDepth

	// DefaultPing is how long a connection may be silent before it is pinged,
	// DefaultPingTimeout how long after the ping it is given up.
	DefaultPing        = 5 * time.Second
	DefaultPingTimeout = 10 * time.Second
	// dataTimeout is for how long commands may wait for Data-Out while none
	// comes. SCSI timeouts of initiators are shorter.
	dataTimeout = 90 * time.Second
	// sendTimeout is how long the last words of a session (the answer to a
	// logout, a Reject) may take to be sent.
	sendTimeout = 2 * time.Second
)
