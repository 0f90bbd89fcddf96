package iscsi

import "fmt"

// ConnectionError says that the connection cannot be used any more: the peer's
// framing is lost or it broke the protocol so far that nothing it sends can be
// trusted. With ErrorRecoveryLevel 0 the session goes with its connection.
type ConnectionError struct {
	Why string // what is wrong, with the section that says so
}

func (e *ConnectionError) Error() string { return "iscsi: " + e.Why }

func connectionErrorf(format string, args ...any) error {
	return &ConnectionError{Why: fmt.Sprintf(format, args...)}
}

// RejectError says that one PDU is refused with a Reject (section 11.17). The
// connection is in step and goes on.
type RejectError struct {
	Reason RejectReason
	Why    string
}

func (e *RejectError) Error() string { return "iscsi: " + e.Reason.String() + ": " + e.Why }
