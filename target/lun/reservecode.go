package lun

import (
	"encoding/binary"
	"errors"
	"fmt"

	"petal/target/scsi"
)

// The stored form of reservationState, big-endian:
//
//	offset  bytes
//	0       1      format version, 1
//	1       1      flags: 1 APTPL
//	2       4      PRgeneration
//	6       1      type of the reservation, 0 for none
//	7       1      service action of the last change
//	8       n      nexus that made the last change
//	        n      nexus that holds the reservation (zeros if none)
//	        2      number of registrations, at most registrationsMax
//	        ...    registrations: key (8), flags (1: 1 ALL_TG_PT), nexus
//
// A nexus is the length of the iSCSI name (1), the name, the ISID (6) and the
// relative target port identifier (2). No value at all is the empty state.

// reservationFormat is the version this code writes.
//
//	1  the first
const reservationFormat = 1

// Errors of decoding. They differ because a newer version asks for a newer
// petal, and a corrupt value for an operator.
var (
	errReservationsNewer   = errors.New("reservations: written by a newer version")
	errReservationsCorrupt = errors.New("reservations: stored value is corrupt")
)

// encode makes the stored form.
func (s *reservationState) encode() []byte {
	b := make([]byte, 0, 64+len(s.registrations)*64)
	var flags uint8
	if s.aptpl {
		flags |= 1
	}
	b = append(b, reservationFormat, flags)
	b = binary.BigEndian.AppendUint32(b, s.generation)
	b = append(b, uint8(s.typ), s.action)
	b = appendNexus(b, s.actor)
	b = appendNexus(b, s.holder)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.registrations)))
	for _, r := range s.registrations {
		b = binary.BigEndian.AppendUint64(b, r.key)
		flags = 0
		if r.allPorts {
			flags = 1
		}
		b = append(b, flags)
		b = appendNexus(b, r.nexus)
	}
	return b
}

func appendNexus(b []byte, id NexusID) []byte {
	name := id.Initiator[:min(len(id.Initiator), 255)]
	b = append(b, uint8(len(name)))
	b = append(b, name...)
	b = append(b, id.ISID[:]...)
	return binary.BigEndian.AppendUint16(b, id.Port)
}

// reader takes fields off the front of a value; bad is set when it ends early.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad, r.b = true, nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) nexus() (id NexusID) {
	id.Initiator = string(r.take(int(r.take(1)[0])))
	copy(id.ISID[:], r.take(6))
	id.Port = binary.BigEndian.Uint16(r.take(2))
	return id
}

// decodeReservations reads the stored form.
func decodeReservations(value []byte) (*reservationState, error) {
	s := &reservationState{}
	if len(value) == 0 {
		return s, nil
	}
	if value[0] > reservationFormat {
		return nil, fmt.Errorf("%w (%d)", errReservationsNewer, value[0])
	}
	r := &reader{b: value[1:]}
	s.aptpl = r.take(1)[0]&1 != 0
	s.generation = binary.BigEndian.Uint32(r.take(4))
	s.typ = scsi.ReservationType(r.take(1)[0])
	s.action = r.take(1)[0]
	s.actor = r.nexus()
	s.holder = r.nexus()
	n := int(binary.BigEndian.Uint16(r.take(2)))
	if n > registrationsMax {
		return nil, errReservationsCorrupt
	}
	for range n {
		key := binary.BigEndian.Uint64(r.take(8))
		all := r.take(1)[0]&1 != 0
		s.registrations = append(s.registrations, registration{nexus: r.nexus(), allPorts: all, key: key})
		if r.bad {
			break
		}
	}
	if r.bad || len(r.b) != 0 || value[0] == 0 {
		return nil, errReservationsCorrupt
	}
	if err := s.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errReservationsCorrupt, err)
	}
	return s, nil
}

// validate checks the invariant of reservationState.
func (s *reservationState) validate() error {
	type port struct {
		initiator string
		isid      [6]byte
	}
	wide := map[port]bool{}
	narrow := map[NexusID]bool{}
	ports := map[port]bool{}
	for _, r := range s.registrations {
		p := port{r.nexus.Initiator, r.nexus.ISID}
		if r.key == 0 {
			return errors.New("a registration without key")
		}
		if r.allPorts && r.nexus.Port != 0 {
			return errors.New("a registration of all ports names one")
		}
		if wide[p] || narrow[r.nexus] || r.allPorts && ports[p] {
			return errors.New("a nexus is registered twice")
		}
		ports[p] = true
		if r.allPorts {
			wide[p] = true
		} else {
			narrow[r.nexus] = true
		}
	}
	switch {
	case s.typ == scsi.NoReservation:
		if s.holder != (NexusID{}) {
			return errors.New("a holder without reservation")
		}
	case !s.typ.Valid():
		return fmt.Errorf("unknown type %d", s.typ)
	case len(s.registrations) == 0:
		return errors.New("a reservation without registrations")
	case s.typ.AllRegistrants():
		if s.holder != (NexusID{}) {
			return errors.New("one holder of an All Registrants reservation")
		}
	case s.find(s.holder) < 0:
		return errors.New("the holder is not registered")
	}
	return nil
}
