package lun

import (
	"fmt"
	"maps"
	"sync/atomic"
)

// NexusID identifies an I_T nexus: the initiator port (iSCSI name and ISID)
// and the target port (relative target port identifier).
type NexusID struct {
	Initiator string
	ISID      [6]byte
	Port      uint16
}

func (id NexusID) String() string {
	return fmt.Sprintf("%s,i,0x%x,port %d", id.Initiator, id.ISID, id.Port)
}

// NexusConfig describes a session to the device server.
type NexusConfig struct {
	Initiator  string // iSCSI name
	ISID       [6]byte
	TargetPort uint16 // relative target port identifier, unique in the cluster
	TPGT       uint16 // target portal group tag

	// AbortAll is called when a task management function or a reservation
	// command must end all tasks of this nexus on a logical unit (the 8-byte
	// LUN field). It aborts them and calls done, from any goroutine, when none
	// can have an effect any more. It must not block. The command that caused
	// it, if it is one of this nexus, is not aborted: skip it. With tell the
	// tasks end with status TASK ABORTED, else without any: the TAS bit of the
	// control mode page, for what another nexus has done (SAM-5 5.3.1).
	AbortAll func(lun uint64, tell bool, done func())
}

// Nexus is an I_T nexus: what one session sees of a Device. Begin is called by
// one goroutine at a time, in CmdSN order; the other methods by any.
type Nexus struct {
	device *Device
	cfg    NexusConfig
	id     NexusID
	// paths is replaced under device.mu, never changed.
	paths atomic.Pointer[map[uint16]*path]
}

// path is an I_T_L nexus: what a unit remembers of one initiator.
type path struct {
	nexus     *Nexus
	unit      *Unit
	lun       uint64 // the 8-byte LUN field
	attention attentions
	access    atomic.Pointer[access]
	prevented atomic.Bool // PREVENT ALLOW MEDIUM REMOVAL
	threshold atomic.Bool // has been told of the soft threshold
}

// setUnit replaces the path of lun. The caller holds device.mu.
func (n *Nexus) setUnit(lun uint16, u *Unit) {
	paths := maps.Clone(*n.paths.Load())
	if old := paths[lun]; old != nil {
		if old.unit == u {
			return
		}
		old.unit.forget(old)
		delete(paths, lun)
	}
	if u != nil {
		p := newPath(n, u, lun)
		paths[lun] = p
		u.remember(p)
	}
	n.paths.Store(&paths)
}

// ID identifies the nexus.
func (n *Nexus) ID() NexusID { return n.id }

// Detach ends the nexus: the session is over and none of its commands is
// running. lost says that it ended without a logout, which is an I_T nexus
// loss event (SAM-5 6.3.4): the initiator hears of it when it comes back.
// Either way what the nexus held by RESERVE is released.
func (n *Nexus) Detach(lost bool) {
	n.device.detach(n, lost)
}
