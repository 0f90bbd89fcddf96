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
	mu   sync.Mutex // guards changes of units, nexuses, lost, group
	// units is replaced, never changed, so that commands read it without a lock.
	units   atomic.Pointer[map[uint16]*Unit]
	nexuses map[*Nexus]struct{}
	lost    map[NexusID]struct{} // nexuses that were lost and not seen since
	group   atomic.Pointer[scsi.PortGroup]
}

// lostMax bounds how many lost nexuses a device remembers. One that is
// forgotten hears POWER ON OCCURRED instead of I_T NEXUS LOSS OCCURRED, which
// says more than it needs to, never less.
const lostMax = 1024

// NewDevice makes a device without logical units. name is the iSCSI name of
// the target.
func NewDevice(name string) *Device {
	d := &Device{name: name, nexuses: map[*Nexus]struct{}{}, lost: map[NexusID]struct{}{}}
	d.units.Store(&map[uint16]*Unit{})
	return d
}

// Name is the iSCSI name of the target.
func (d *Device) Name() string { return d.name }

// SetPorts sets the one target port group of the device and its relative
// target port identifiers, as REPORT TARGET PORT GROUPS tells them. Before it
// is called, the group is 1 and has just the port of the nexus that asks.
func (d *Device) SetPorts(group uint16, ports ...uint16) {
	d.group.Store(&scsi.PortGroup{State: scsi.ALUAActiveOptimized, Group: group, Ports: slices.Clone(ports)})
	d.eachPath(func(p *path) { p.attention.establish(attentionALUAChanged) })
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

func (d *Device) eachPath(f func(*path)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.nexuses {
		for _, p := range *n.paths.Load() {
			f(p)
		}
	}
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
	first := attentionPowerOn
	if _, ok := d.lost[n.id]; ok {
		first = attentionNexusLoss
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
		d.lost[n.id] = struct{}{}
	}
}
