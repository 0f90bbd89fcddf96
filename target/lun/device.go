package lun

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"petal/target/scsi"
)

// Device is the SCSI target device behind one iSCSI target: a map from LUN to
// Unit, and the I_T nexuses that see it. It survives sessions. Safe for
// concurrent use.
type Device struct {
	name string
	mu   sync.Mutex // guards changes of all below
	// units is replaced, never changed, so that commands read it without a lock.
	units   atomic.Pointer[map[uint16]*Unit]
	nexuses map[*Nexus]struct{}
	lost    map[NexusID]uint64 // nexuses that were lost and not seen since -> changes then
	ports   atomic.Pointer[ports]
	changes uint64 // of ports, so far
}

// ports is what a device knows of the target ports of all nodes. It is
// replaced, never changed.
type ports struct {
	local  uint16           // the group of this node
	groups []scsi.PortGroup // of all nodes, ascending
}

// lostMax bounds how many lost nexuses a device remembers. One that is
// forgotten hears POWER ON OCCURRED instead of I_T NEXUS LOSS OCCURRED, which
// says more than it needs to, never less.
const lostMax = 1024

// NewDevice makes a device without logical units. name is the iSCSI name of
// the target.
func NewDevice(name string) *Device {
	d := &Device{name: name, nexuses: map[*Nexus]struct{}{}, lost: map[NexusID]uint64{}}
	d.units.Store(&map[uint16]*Unit{})
	return d
}

// Name is the iSCSI name of the target.
func (d *Device) Name() string { return d.name }

// SetPorts sets the target port groups of all nodes, as REPORT TARGET PORT
// GROUPS tells them, and which of them is this node's; the slices are the
// device's from now on. If anything has changed, all nexuses get the unit
// attention ASYMMETRIC ACCESS STATE CHANGED; those that were lost before get it
// when they come back. Before it is called there is one group, 1, with just the
// port of the nexus that asks.
func (d *Device) SetPorts(local uint16, groups []scsi.PortGroup) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.ports.Load()
	if old != nil && old.local == local && slices.EqualFunc(old.groups, groups, scsi.PortGroup.Equal) {
		return
	}
	d.ports.Store(&ports{local, groups})
	d.changes++
	for n := range d.nexuses {
		for _, p := range *n.paths.Load() {
			p.attention.establish(attentionALUAChanged)
		}
	}
}

// SetUnit makes u the logical unit of lun, at most scsi.LUNMax, in place of
// any other. All nexuses get the unit attention REPORTED LUNS DATA HAS CHANGED.
func (d *Device) SetUnit(lun uint16, u *Unit) { d.changeUnits(lun, u) }

// RemoveUnit removes the logical unit of lun. Commands for it that have begun
// go on; later ones end with LOGICAL UNIT NOT SUPPORTED, which initiators take
// for the permanent loss of the disk.
func (d *Device) RemoveUnit(lun uint16) { d.changeUnits(lun, nil) }

func (d *Device) changeUnits(lun uint16, u *Unit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	units := maps.Clone(*d.units.Load())
	if u == nil {
		delete(units, lun)
	} else {
		units[lun] = u
	}
	d.units.Store(&units)
	for n := range d.nexuses {
		n.setUnit(lun, u)
		for _, p := range *n.paths.Load() {
			p.attention.establish(attentionLUNsChanged)
		}
	}
}

// luns is the LUNs in use, ascending.
func (d *Device) luns() []uint16 {
	return slices.Sorted(maps.Keys(*d.units.Load()))
}

// Attach makes the I_T nexus of a new session. Of two sessions with the same
// initiator, ISID and target port the caller ends the older one first
// (RFC 7143 6.3.5: session reinstatement).
func (d *Device) Attach(cfg NexusConfig) *Nexus {
	n := &Nexus{
		device: d,
		cfg:    cfg,
		id:     NexusID{Initiator: cfg.Initiator, ISID: cfg.ISID, Port: cfg.TargetPort},
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	first, moved := attentionPowerOn, false
	if then, ok := d.lost[n.id]; ok {
		first, moved = attentionNexusLoss, then != d.changes
		delete(d.lost, n.id)
	}
	paths := map[uint16]*path{}
	n.paths.Store(&paths)
	d.nexuses[n] = struct{}{}
	for lun, u := range *d.units.Load() {
		n.setUnit(lun, u)
	}
	for _, p := range *n.paths.Load() {
		p.attention.establish(first)
		if moved {
			p.attention.establish(attentionALUAChanged)
		}
	}
	return n
}

func (d *Device) detach(n *Nexus, lost bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.nexuses[n]; !ok {
		return
	}
	delete(d.nexuses, n)
	for lun := range *n.paths.Load() {
		n.setUnit(lun, nil)
	}
	if lost && len(d.lost) < lostMax {
		d.lost[n.id] = d.changes
	}
}
