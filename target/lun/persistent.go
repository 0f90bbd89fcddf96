package lun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"petal/target/scsi"
)

// storeTimeout bounds one PERSISTENT RESERVE OUT: longer than the worst
// barrier, which waits for a lease to end.
const storeTimeout = 10 * time.Second

// reservations is a unit's view of its reservations store.
type reservations struct {
	unit  *Unit
	store Reservations
	// state is never nil.
	state atomic.Pointer[reservationState]

	mu      sync.Mutex // one refresh at a time
	version uint64
}

func (r *reservations) open(u *Unit, store Reservations) error {
	r.unit, r.store = u, store
	value, version := store.Load()
	s, err := decodeReservations(value)
	if err != nil {
		return err
	}
	r.state.Store(s)
	r.version = version
	store.Watch(r.refresh)
	r.refresh() // what changed before the watch
	return nil
}

// refresh takes over the stored state if it is another, and derives from the
// change what this node's nexuses must hear and which of their commands end.
func (r *reservations) refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	value, version := r.store.Load()
	if version == r.version {
		return
	}
	next, err := decodeReservations(value)
	if err != nil {
		next = &reservationState{closed: true}
	}
	old := r.state.Load()
	r.state.Store(next)
	r.version = version
	r.unit.gate.drain()
	for _, n := range old.changes(next) {
		for _, p := range r.unit.allPaths() {
			if n.to.covers(p.nexus.id) && p.nexus.id != next.actor {
				p.attention.establish(n.kind)
			}
		}
	}
	if next.action == scsi.SAPreemptAbort {
		for _, p := range r.unit.pathsOf(old.removed(next)) {
			p.abortAll(r.unit.modes.taskAborted(), func() {})
		}
	}
}

// pathsOf is the paths of this node that registrations cover.
func (u *Unit) pathsOf(list []registration) []*path {
	var paths []*path
	for _, p := range u.allPaths() {
		for i := range list {
			if list[i].covers(p.nexus.id) {
				paths = append(paths, p)
				break
			}
		}
	}
	return paths
}

// known is the ISIDs with which an initiator has a nexus to the unit here.
func (u *Unit) known(initiator string) (isids [][6]byte) {
	seen := map[[6]byte]bool{}
	for _, p := range u.allPaths() {
		if id := p.nexus.id; id.Initiator == initiator && !seen[id.ISID] {
			seen[id.ISID] = true
			isids = append(isids, id.ISID)
		}
	}
	return isids
}

func beginPersistentOut(c *Command) {
	c.takeParam(binary.BigEndian.Uint32(c.CDB[5:]), scsi.PersistentOutMax)
}

// runPersistentOut carries out PERSISTENT RESERVE OUT on a goroutine of its
// own, since the store agrees with the whole cluster before it returns.
func runPersistentOut(c *Command) {
	if !c.gotAll() {
		return
	}
	o, inCDB, e := scsi.ParsePersistentOut(scsi.CDB(c.CDB), c.param)
	if e != nil {
		c.paramError(e, inCDB)
		c.Done(c)
		return
	}
	go c.persistentOut(o)
}

// persistentOut applies the request to the stored state, again and again until
// no one else has changed it in between.
func (c *Command) persistentOut(o scsi.PersistentOut) {
	r := &c.path.unit.reservations
	id := c.nexus.id
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	for {
		value, version := r.store.Load()
		s, err := decodeReservations(value)
		if err != nil {
			c.drop()
			return
		}
		next, out := s.apply(id, o, c.path.unit.known)
		if next == s {
			c.finishOutcome(out)
			return
		}
		err = r.store.Store(ctx, next.encode(), version, s.revokes(next))
		if errors.Is(err, ErrStale) {
			continue
		}
		if err != nil {
			c.drop() // the outcome is open: the initiator has to look
			return
		}
		r.refresh()
		c.endPreempted(s, next)
		return
	}
}

// endPreempted ends the command after the tasks that it aborts have ended.
func (c *Command) endPreempted(s, next *reservationState) {
	if next.action != scsi.SAPreemptAbort {
		c.finish(scsi.StatusGood)
		return
	}
	paths := c.path.unit.pathsOf(s.removed(next))
	whenAll(len(paths), func() { c.finish(scsi.StatusGood) }, func(one func()) {
		for _, p := range paths {
			p.abortAll(c.path.unit.modes.taskAborted(), one)
		}
	})
}

func (c *Command) finishOutcome(o outcome) {
	if o.status == scsi.StatusCheckCondition {
		c.finishCheck(o.sense)
		return
	}
	c.finish(o.status)
}

// paramError sets the sense data of a bad parameter list or CDB field.
func (c *Command) paramError(e *scsi.ParamError, inCDB bool) {
	switch {
	case e.Length:
		c.illegal(scsi.CodeParameterListLength)
	case inCDB:
		c.badField(e.Byte, e.Bit)
	default:
		c.badParam(e.Byte, e.Bit)
	}
}

// beginPersistentIn answers from what is known here, unless the store can make
// sure first that this is the present.
func beginPersistentIn(c *Command) {
	if _, ok := c.path.unit.reservations.store.(Syncer); !ok {
		c.answerPersistentIn()
	}
}

func runPersistentIn(c *Command) {
	r := &c.path.unit.reservations
	r.store.(Syncer).Sync(func(err error) {
		if err != nil {
			c.path.unit.cfg.AfterFunc(dropPause, c.drop)
			return
		}
		go func() { // refresh waits for commands on their way to the disk, and may call them
			r.refresh()
			c.answerPersistentIn()
			c.Done(c)
		}()
	})
}

func (c *Command) answerPersistentIn() {
	s := c.path.unit.reservations.state.Load()
	if s.closed {
		c.Drop = true
		c.status(scsi.StatusBusy)
		return
	}
	var data []byte
	switch scsi.CDB(c.CDB).ServiceAction() {
	case scsi.SAReadKeys:
		keys := make([]uint64, len(s.registrations))
		for i := range s.registrations {
			keys[i] = s.registrations[i].key
		}
		data = scsi.AppendReadKeys(nil, s.generation, keys)
	case scsi.SAReadReservation:
		data = scsi.AppendReadReservation(nil, s.generation, s.typ, s.holderKey())
	case scsi.SAReportCapability:
		data = scsi.AppendReportCapabilities(nil, s.aptpl)
	case scsi.SAReadFullStatus:
		data = scsi.AppendReadFullStatus(nil, s.generation, s.fullStatus())
	}
	c.answer(data, scsi.CDB(c.CDB).Length())
}

func (s *reservationState) fullStatus() []scsi.FullStatus {
	list := make([]scsi.FullStatus, len(s.registrations))
	for i := range s.registrations {
		r := &s.registrations[i]
		list[i] = scsi.FullStatus{
			Key:        r.key,
			Holder:     s.typ.AllRegistrants() || s.typ != scsi.NoReservation && r.covers(s.holder),
			Type:       s.typ,
			AllPorts:   r.allPorts,
			TargetPort: r.nexus.Port,
			Initiator:  scsi.TransportID{Name: r.nexus.Initiator, ISID: r.nexus.ISID, HasISID: true},
		}
	}
	return list
}

// RESERVE and RELEASE (SPC-2 7.21 and 7.17), with the compatible handling of
// SPC-4 5.12.3: a nexus that takes part in a persistent reservation gets GOOD
// and nothing changes; others get RESERVATION CONFLICT. The reservation is kept
// by this node alone and ends with the nexus or a reset.

func runReserve(c *Command) {
	if done := c.compatible(); done {
		return
	}
	u, id := c.path.unit, c.nexus.id
	if u.legacy.CompareAndSwap(nil, &id) {
		c.finish(scsi.StatusGood)
		return
	}
	if h := u.legacy.Load(); h != nil && *h == id {
		c.finish(scsi.StatusGood)
		return
	}
	c.finish(scsi.StatusReservationConflict)
}

func runRelease(c *Command) {
	if done := c.compatible(); done {
		return
	}
	u := c.path.unit
	if h := u.legacy.Load(); h != nil && *h == c.nexus.id {
		u.legacy.CompareAndSwap(h, nil)
	}
	c.finish(scsi.StatusGood) // of one that holds nothing: no error, SPC-2 7.17.1
}

// compatible ends RESERVE or RELEASE if there are persistent reservations.
func (c *Command) compatible() bool {
	s := c.path.unit.reservations.state.Load()
	if len(s.registrations) == 0 && !s.closed {
		return false
	}
	a := c.path.accessUnder(s)
	if a.holder || a.registered && (s.typ.Registrants() || s.typ == scsi.NoReservation) {
		c.finish(scsi.StatusGood)
	} else {
		c.finish(scsi.StatusReservationConflict)
	}
	return true
}

// beginReserve refuses the forms of RESERVE (10) and RELEASE (10) for third
// parties and extents.
func beginReserve(c *Command) {
	if c.row.Len == 10 {
		if c.CDB[1]&0x12 != 0 {
			c.badField(1, 4)
		}
		return
	}
	if c.CDB[1]&0x11 != 0 {
		c.badField(1, 4)
	}
}

// String is for logs.
func (s *reservationState) String() string {
	return fmt.Sprintf("generation %d, %v, %d registrations", s.generation, s.typ, len(s.registrations))
}
