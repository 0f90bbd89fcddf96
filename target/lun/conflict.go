package lun

import "petal/target/scsi"

// access is what a nexus is under one state of the reservations. It is cached
// with the path, since finding a nexus among the registrations is not for
// every command.
type access struct {
	state      *reservationState
	registered bool
	holder     bool
}

func (p *path) accessUnder(s *reservationState) *access {
	if a := p.access.Load(); a != nil && a.state == s {
		return a
	}
	id := p.nexus.id
	a := &access{state: s, registered: s.find(id) >= 0, holder: s.holds(id)}
	p.access.Store(a)
	return a
}

// conflictMatrix is what a nexus may do that has no part in a reservation: one
// that is not the holder and, under the Registrants Only and All Registrants
// types, not registered (SPC-4 tables 65 and 66, SBC-3 table 13; for RESERVE
// SPC-2 table 9).
//
//	Write Exclusive types | Exclusive Access types | RESERVE of another
var conflictMatrix = [scsi.ConflictCount][3]bool{
	scsi.ConflictNever:   {true, true, true},
	scsi.ConflictLegacy:  {true, true, false},
	scsi.ConflictRead:    {true, false, false},
	scsi.ConflictWrite:   {false, false, false},
	scsi.ConflictStart:   {false, false, false}, // or as startAllows says
	scsi.ConflictPrevent: {false, false, false}, // or as preventAllows says
	scsi.ConflictPROut:   {true, true, false},   // reservationState.apply decides
	scsi.ConflictReserve: {true, true, true},    // runReserve and runRelease decide
}

const (
	underWriteExclusive = iota
	underExclusiveAccess
	underReserve
)

// reservationAllows tells whether the reservations let the nexus carry out the
// command, and remembers the state it judged by.
func (c *Command) reservationAllows() bool {
	p := c.path
	s := p.unit.reservations.state.Load()
	c.seen = s
	holder := p.unit.legacy.Load()
	if s.typ == scsi.NoReservation && holder == nil && !s.closed {
		return true
	}
	if holder != nil && *holder != p.nexus.id && !c.allowed(underReserve) {
		return false
	}
	switch {
	case s.closed:
		return c.allowed(underExclusiveAccess)
	case s.typ == scsi.NoReservation:
		return true
	}
	a := p.accessUnder(s)
	if a.holder || a.registered && s.typ.Registrants() {
		return true
	}
	if s.typ.Exclusive() {
		return c.allowed(underExclusiveAccess)
	}
	return c.allowed(underWriteExclusive)
}

// allowed looks the command up in the matrix. Two commands are milder in one
// of their forms: START STOP UNIT that starts, and PREVENT ALLOW that allows.
func (c *Command) allowed(under int) bool {
	switch {
	case c.row.Conflict == scsi.ConflictStart && under != underReserve && c.CDB[4]&0xF1 == 1,
		c.row.Conflict == scsi.ConflictPrevent && c.CDB[4]&3 == 0:
		return true
	}
	return conflictMatrix[c.row.Conflict][under]
}
