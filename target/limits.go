package target

import "time"

// What strangers may take up. The limits on PDUs and text are package iscsi's,
// those on a session package session's.
const (
	// maxHalfOpen is how many connections may be on their way to a login. Each
	// has a goroutine and iscsi.LoginBuffer, about 12 KiB.
	maxHalfOpen = 1024
	// maxSessions bounds the sessions of the server, discovery included.
	maxSessions = 4096
	// maxDiscovery bounds the discovery sessions among them: who knows no secret
	// can have those. Beyond it the oldest ends, of the address with the most.
	maxDiscovery = 256
	// DefaultTotalBudget is how many bytes the commands in flight of all sessions
	// may borrow together, beside one command of each session.
	DefaultTotalBudget = 1 << 30
	// DefaultLoginTimeout bounds each stage of a login.
	DefaultLoginTimeout = 15 * time.Second
	// reinstateTimeout is how long a login waits for the tasks of the session
	// that it reinstates. ESXi gives a login 5 s.
	reinstateTimeout = 4 * time.Second
	// drainGrace is how long initiators are given to log out by themselves.
	drainGrace = 2 * time.Second

	// A refused login is answered at once if the initiator was not refused for
	// refusalPause; else the answer waits until it is, and beyond
	// maxRefusalWait the connection is closed without one.
	refusalPause   = time.Second
	maxRefusalWait = 3 * time.Second
	// maxRefusals is how many initiators are remembered as refused.
	maxRefusals = 1024

	// acceptPause is how long accepting rests after an error such as EMFILE.
	acceptPause = 50 * time.Millisecond
)
