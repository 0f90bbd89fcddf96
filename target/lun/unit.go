package lun

import (
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"petal/target/scsi"
)

// UnitConfig describes a logical unit.
type UnitConfig struct {
	Disk         Disk
	Reservations Reservations
	UUID         [16]byte // identity for ever: serial number and NAA come from it
	Name         string   // for logs

	// Product is the product identification of INQUIRY, at most 16 bytes. It is
	// the same on every node and path. Default: the prefix "VDISK-" with ten
	// digits of the UUID, since ESXi merged units that shared it.
	Product  string
	Revision string // product revision level, at most 4 bytes; default "1"

	// Reset makes sure that no command of any node which the disk was given
	// before the call has an effect after done(nil): a reset reaches the nexuses
	// of all nodes. It does not block. nil: this node is all there is.
	Reset func(done func(error))

	// AfterFunc is the clock; default: package time.
	AfterFunc func(time.Duration, func())
}

// Vendor is the T10 vendor identification of all units.
const Vendor = "PETAL"

// Unit is one logical unit: a Disk with its identity, mode pages and
// reservations. It may be seen through several Devices. Safe for concurrent
// use.
type Unit struct {
	cfg     UnitConfig
	disk    Disk
	block   uint64 // logical block length in bytes
	serial  string
	naa     [16]byte
	inquiry scsi.Inquiry
	modes   modes

	reservations reservations
	gate         gate                    // commands pass it on their way to the disk
	legacy       atomic.Pointer[NexusID] // holder of RESERVE (SPC-2), or nil

	mu    sync.Mutex // guards paths
	paths map[*path]struct{}
}

// NewUnit makes a logical unit. It fails if the disk's block length is neither
// 512 nor 4096, or its size is not a positive multiple of it, or the stored
// reservations can't be read: then serving the disk could break a reservation.
func NewUnit(cfg UnitConfig) (*Unit, error) {
	bs := cfg.Disk.BlockSize()
	if bs != 512 && bs != 4096 {
		return nil, fmt.Errorf("logical unit %s: block length %d is neither 512 nor 4096", cfg.Name, bs)
	}
	if size := cfg.Disk.Size(); size == 0 || size%uint64(bs) != 0 {
		return nil, fmt.Errorf("logical unit %s: size %d is not a positive multiple of %d", cfg.Name, size, bs)
	}
	if cfg.AfterFunc == nil {
		cfg.AfterFunc = func(d time.Duration, f func()) { time.AfterFunc(d, f) }
	}
	u := &Unit{
		cfg:    cfg,
		disk:   cfg.Disk,
		block:  uint64(bs),
		serial: hex.EncodeToString(cfg.UUID[:]),
		naa:    naaOf(cfg.UUID),
		paths:  map[*path]struct{}{},
	}
	if cfg.Product == "" {
		cfg.Product = "VDISK-" + u.serial[:10]
	}
	if cfg.Revision == "" {
		cfg.Revision = "1"
	}
	u.inquiry = scsi.Inquiry{Vendor: Vendor, Product: cfg.Product, Revision: cfg.Revision}
	if err := u.reservations.open(u, cfg.Reservations); err != nil {
		return nil, fmt.Errorf("logical unit %s: %w", cfg.Name, err)
	}
	return u, nil
}

// naaOf makes an NAA IEEE Registered Extended identifier (SPC-4 7.8.5.6.5)
// from a UUID: NAA 6h, the locally administered company identifier 02-50-45h
// ("PE" after the local bit), and the last 100 bits of the UUID.
func naaOf(uuid [16]byte) (naa [16]byte) {
	copy(naa[3:], uuid[3:])
	naa[0] = 0x60
	naa[1] = 0x25
	naa[2] = 0x04
	naa[3] = 0x50 | uuid[3]&0x0F
	return naa
}

// NAA is the unit's world wide identifier, as page 83h gives it.
func (u *Unit) NAA() [16]byte { return u.naa }

// Serial is the unit serial number, 32 hexadecimal digits.
func (u *Unit) Serial() string { return u.serial }

// Close ends the unit's watch on its reservations.
func (u *Unit) Close() { u.cfg.Reservations.Watch(nil) }

// CapacityChanged establishes the unit attention CAPACITY DATA HAS CHANGED for
// every nexus: the disk's Size is another.
func (u *Unit) CapacityChanged() { u.attend(attentionCapacityChanged) }

// ModeChanged establishes the unit attention MODE PARAMETERS CHANGED for every
// nexus: the disk's WriteCache or ReadOnly is another.
func (u *Unit) ModeChanged() { u.attend(attentionModeChanged) }

// ThresholdReached establishes the unit attention THIN PROVISIONING SOFT
// THRESHOLD REACHED, once for each nexus as long as ThresholdCleared is not
// called.
func (u *Unit) ThresholdReached() {
	for _, p := range u.allPaths() {
		if p.threshold.CompareAndSwap(false, true) {
			p.attention.establish(attentionSoftThreshold)
		}
	}
}

// ThresholdCleared says that the pool is below its soft threshold again, so
// that the next ThresholdReached is news.
func (u *Unit) ThresholdCleared() {
	for _, p := range u.allPaths() {
		p.threshold.Store(false)
	}
}

// attend establishes a unit attention on all paths.
func (u *Unit) attend(k attention) {
	for _, p := range u.allPaths() {
		p.attention.establish(k)
	}
}

// newPath makes the path of a nexus to a unit.
func newPath(n *Nexus, u *Unit, lun uint16) *path {
	return &path{nexus: n, unit: u, lun: scsi.EncodeLUN(lun)}
}

func (u *Unit) remember(p *path) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.paths[p] = struct{}{}
}

// forget drops a path. What its nexus held by RESERVE is released: SPC-2
// reservations end with the I_T nexus.
func (u *Unit) forget(p *path) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.paths, p)
	if h := u.legacy.Load(); h != nil && *h == p.nexus.id {
		u.legacy.Store(nil)
	}
}

func (u *Unit) allPaths() []*path {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := make([]*path, 0, len(u.paths))
	for p := range u.paths {
		list = append(list, p)
	}
	return list
}

// blocks is the capacity in logical blocks.
func (u *Unit) blocks() uint64 { return u.disk.Size() / u.block }
