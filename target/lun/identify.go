package lun

import (
	"encoding/binary"

	"petal/target/scsi"
)

// Limits of VPD page B0h that are not those of a Disk, in bytes.
const (
	chunk       = 64 << 10 // what a Disk writes atomically
	physical    = 4 << 10  // physical block
	unmapMax    = 512 << 20
	prefetchMax = MaxTransfer
)

// writeSameBlocksMax is the most logical blocks of one WRITE SAME. With a
// pattern that is not zero each of them is written, so it is kept to what ends
// well within an initiator's patience.
const writeSameBlocksMax = 32768

// unmapDescriptorsMax is how many block descriptors one UNMAP may have.
const unmapDescriptorsMax = 255

func beginTestUnitReady(c *Command) { c.status(scsi.StatusGood) }

// beginRequestSense reports a pending unit attention, as parameter data, and
// clears it (SPC-4 6.39, SAM-5 5.14.2).
func beginRequestSense(c *Command) {
	s, _ := c.path.attention.take()
	c.answer(s.Append(nil, c.CDB[1]&1 != 0), uint32(c.CDB[4]))
}

func allocationOfInquiry(cdb []byte) uint32 { return uint32(binary.BigEndian.Uint16(cdb[3:])) }

func beginInquiry(c *Command) {
	evpd, page := c.CDB[1]&1 != 0, c.CDB[2]
	switch {
	case !evpd && page != 0:
		c.badField(2, -1) // SPC-4 6.4.1: "EVPD 0 and PAGE CODE not zero"
	case !evpd:
		c.answer(c.path.unit.inquiry.Append(nil), allocationOfInquiry(c.CDB))
	default:
		if data := c.vpd(page); data != nil {
			c.answer(data, allocationOfInquiry(c.CDB))
			return
		}
		c.badField(2, -1)
	}
}

func beginInquiryAbsent(c *Command) {
	if c.CDB[1]&1 != 0 || c.CDB[2] != 0 {
		c.badField(2, -1)
		return
	}
	c.answer(scsi.AppendInquiryAbsent(nil), allocationOfInquiry(c.CDB))
}

// vpd makes a vital product data page, or nil if there is none such.
func (c *Command) vpd(page uint8) []byte {
	u := c.path.unit
	switch page {
	case scsi.VPDSupported:
		return scsi.AppendVPDSupported(nil)
	case scsi.VPDSerial:
		return scsi.AppendVPDSerial(nil, u.serial)
	case scsi.VPDIdentification:
		group, _ := c.nexus.portGroups()
		return scsi.Identity{
			NAA: u.naa, Vendor: Vendor, Serial: u.serial,
			TargetPort: c.nexus.cfg.TargetPort,
			PortGroup:  group,
			TargetName: c.nexus.device.name,
			PortalTag:  c.nexus.cfg.TPGT,
		}.AppendVPDIdentification(nil)
	case scsi.VPDExtended:
		return scsi.AppendVPDExtended(nil, u.disk.WriteCache())
	case scsi.VPDBlockLimits:
		return u.limits().Append(nil)
	case scsi.VPDBlockChars:
		return scsi.AppendVPDBlockCharacteristics(nil)
	case scsi.VPDProvisioning:
		return scsi.AppendVPDProvisioning(nil, thresholdExp(u.block))
	}
	return nil
}

// thresholdExp is the threshold set size of a unit: 1 MiB, as a power of two
// of blocks.
func thresholdExp(block uint64) uint8 {
	if block == 4096 {
		return 8
	}
	return 11
}

// limits is VPD page B0h.
func (u *Unit) limits() scsi.BlockLimits {
	b := uint32(u.block)
	return scsi.BlockLimits{
		MaxCompareAndWrite:  1,
		OptimalGranularity:  uint16(physical / b),
		MaxTransfer:         MaxTransfer / b,
		OptimalTransfer:     chunk / b,
		MaxPrefetch:         prefetchMax / b,
		MaxUnmap:            unmapMax / b,
		MaxUnmapDescriptors: unmapDescriptorsMax,
		UnmapGranularity:    physical / b,
		MaxWriteSame:        writeSameBlocksMax,
		// A chunk is written as one and must not be crossed. The page has no
		// word for that; initiators whose atomic writes are aligned to their own
		// length (Linux) never do, and the command checks it (beginWriteAtomic).
		MaxAtomic:         chunk / b,
		AtomicAlignment:   physical / b,
		AtomicGranularity: physical / b,
	}
}

// portGroups are the target port groups, and the number of the one that the
// nexus comes through.
func (n *Nexus) portGroups() (local uint16, groups []scsi.PortGroup) {
	if p := n.device.ports.Load(); p != nil {
		return p.local, p.groups
	}
	return 1, []scsi.PortGroup{{State: scsi.ALUAActiveOptimized, Group: 1, Ports: []uint16{n.cfg.TargetPort}}}
}

func beginReportLUNs(c *Command) {
	sel, allocation := c.CDB[2], scsi.CDB(c.CDB).Length()
	var luns []uint16
	switch sel {
	case scsi.SelectNonWellKnown, scsi.SelectAll:
		luns = c.nexus.device.luns()
	case scsi.SelectWellKnown:
	default:
		c.badField(2, -1)
		return
	}
	// SPC-4 6.33.1: an allocation length below 16 is an error.
	if allocation < 16 {
		c.badField(6, -1)
		return
	}
	for _, p := range *c.nexus.paths.Load() {
		p.attention.clear(attentionLUNsChanged)
	}
	c.answer(scsi.AppendReportLUNs(nil, luns), allocation)
}

func (u *Unit) capacity() scsi.Capacity {
	cap := scsi.Capacity{Blocks: u.blocks(), BlockLength: uint32(u.block), Provisioning: true, ReadsZeros: true}
	if u.block == 512 {
		cap.PhysicalExp = 3
	}
	return cap
}

func beginReadCapacity10(c *Command) {
	cdb := scsi.CDB(c.CDB)
	// SBC-3 5.15.1: with PMI zero, the LBA shall be zero.
	if c.CDB[8]&1 == 0 && cdb.LBA() != 0 {
		c.badField(2, -1)
		return
	}
	c.answer(c.path.unit.capacity().Append10(nil), 8)
}

func beginReadCapacity16(c *Command) {
	cdb := scsi.CDB(c.CDB)
	if c.CDB[14]&1 == 0 && cdb.LBA() != 0 {
		c.badField(2, -1)
		return
	}
	c.answer(c.path.unit.capacity().Append16(nil), cdb.Length())
}
