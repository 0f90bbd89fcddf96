package lun

import (
	"petal/target/scsi"
)

// Bits of byte 1 of WRITE SAME.
const (
	writeSameNDOB   = 0x01 // of the 16-byte CDB
	writeSameUnmap  = 0x08
	writeSameAnchor = 0x10
)

func beginWriteSame(c *Command) {
	cdb := scsi.CDB(c.CDB)
	blocks := uint64(cdb.Blocks())
	switch {
	case cdb.Protect() != 0:
		c.badField(1, 7)
	case c.CDB[1]&writeSameAnchor != 0:
		c.badField(1, 4) // ANC_SUP is 0
	case !c.checkRange(cdb.LBA(), blocks):
	case blocks == 0 || blocks > writeSameBlocksMax:
		c.badField(lengthField(c.row.Len), -1) // WSNZ is 1
	case !c.checkWritable():
	case c.row.Len == 16 && c.CDB[1]&writeSameNDOB != 0:
		// No data-out: the blocks are written with zeros.
	default:
		c.takeData(int(c.path.unit.block))
	}
	// The range may be longer than a transfer, so n is not used.
}

// runWriteSame zeroes the range if the block is all zeros, which allocates
// nothing, with UNMAP or without. Other patterns are written in pieces.
func runWriteSame(c *Command) {
	if !c.gotAll() {
		return
	}
	n := uint64(scsi.CDB(c.CDB).Blocks()) * c.path.unit.block
	unmap := c.CDB[1]&writeSameUnmap != 0
	pattern := c.param
	go func() {
		if allZero(pattern) {
			c.end(c.zero(c.off, n, unmap))
			return
		}
		c.end(pieces(c.off, n, pieceMax, func(off uint64, n int, _ uint64) error {
			return c.write(off, n, false, func(vec [][]byte) { fillPattern(vec, pattern) })
		}))
	}()
}

func (c *Command) zero(off, n uint64, unmap bool) error {
	return c.wait(func(done func(error)) { c.path.unit.disk.Zero(off, n, unmap, done) })
}

func allZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}

// fillPattern fills vectors with a pattern that repeats across them.
func fillPattern(vec [][]byte, pattern []byte) {
	at := 0
	for _, v := range vec {
		for len(v) > 0 {
			k := copy(v, pattern[at:])
			v, at = v[k:], (at+k)%len(pattern)
		}
	}
}

// unmapListMax is the longest UNMAP parameter list that is read.
const unmapListMax = 64 << 10

func beginUnmap(c *Command) {
	if c.CDB[1]&1 != 0 {
		c.badField(1, 0) // ANCHOR
		return
	}
	if c.checkWritable() {
		c.takeParam(scsi.CDB(c.CDB).Length(), unmapListMax)
	}
}

// runUnmap checks all descriptors before it unmaps the first (SBC-3 5.28.1:
// the command ends without having unmapped if one is wrong).
func runUnmap(c *Command) {
	if !c.gotAll() {
		return
	}
	list, e := scsi.ParseUnmap(nil, c.param)
	if e != nil {
		c.paramError(e, false)
		c.Done(c)
		return
	}
	if !c.checkUnmap(list) {
		c.Done(c)
		return
	}
	go func() {
		block := c.path.unit.block
		for _, d := range list {
			if d.Blocks == 0 {
				continue
			}
			if err := c.zero(d.LBA*block, uint64(d.Blocks)*block, true); err != nil {
				c.end(err)
				return
			}
		}
		c.end(nil)
	}()
}

func (c *Command) checkUnmap(list []scsi.UnmapBlock) bool {
	if len(list) > unmapDescriptorsMax {
		c.badParam(2, -1)
		return false
	}
	total := uint64(0)
	for i, d := range list {
		total += uint64(d.Blocks)
		if total > unmapMax/c.path.unit.block {
			c.badParam(scsi.UnmapListLen(i)+8, -1)
			return false
		}
		if !c.checkRange(d.LBA, uint64(d.Blocks)) {
			return false
		}
	}
	return true
}

func beginSyncCache(c *Command) {
	cdb := scsi.CDB(c.CDB)
	c.checkRange(cdb.LBA(), uint64(cdb.Blocks()))
}

// runSyncCache flushes the whole disk, whatever the range. With IMMED it ends
// before the flush does.
func runSyncCache(c *Command) {
	const immed = 0x02
	disk := c.path.unit.disk
	if c.CDB[1]&immed != 0 {
		disk.Flush(func(error) {})
		c.finish(scsi.StatusGood)
		return
	}
	disk.Flush(func(err error) {
		if err != nil {
			c.diskError(err)
			return
		}
		c.finish(scsi.StatusGood)
	})
}

// beginPrefetch checks the range; nothing is fetched. GOOD, not CONDITION MET,
// says that the blocks may not all be in the cache (SBC-3 5.8).
func beginPrefetch(c *Command) {
	cdb := scsi.CDB(c.CDB)
	if c.checkRange(cdb.LBA(), uint64(cdb.Blocks())) {
		c.status(scsi.StatusGood)
	}
}

// lbaStatusMax is the most descriptors that GET LBA STATUS returns.
const lbaStatusMax = 64

func beginGetLBAStatus(c *Command) {
	cdb := scsi.CDB(c.CDB)
	if lba := cdb.LBA(); lba >= c.path.unit.blocks() {
		c.check(scsi.Sense{Key: scsi.KeyIllegalRequest, Code: scsi.CodeLBAOutOfRange, HasInfo: true, Info: lba})
		return
	}
	c.checkRange(cdb.LBA(), 0)
}

func runGetLBAStatus(c *Command) {
	allocation := scsi.CDB(c.CDB).Length()
	room := 0
	if allocation >= scsi.LBAStatusHeaderLen {
		room = int((allocation - scsi.LBAStatusHeaderLen) / scsi.LBAStatusLen)
	}
	go func() {
		list, err := c.path.unit.lbaStatus(c.off, min(max(room, 1), lbaStatusMax))
		if err != nil {
			c.diskError(err)
			return
		}
		c.answer(scsi.AppendLBAStatus(nil, list), allocation)
		c.Done(c)
	}()
}

// lbaStatus describes the disk from off in at most most descriptors; adjoining
// ranges of the same status are one.
func (u *Unit) lbaStatus(off uint64, most int) (list []scsi.LBAStatus, err error) {
	for size := u.disk.Size(); off < size; {
		mapped, run, err := u.disk.Provisioned(off, size-off)
		if err != nil {
			return nil, err
		}
		// A descriptor counts blocks in 32 bits.
		run = min(max(run, u.block), 0xFFFFFFFF*u.block)
		status := scsi.Deallocated
		if mapped {
			status = scsi.Mapped
		}
		blocks := uint32(run / u.block)
		last := len(list) - 1
		switch {
		case last >= 0 && list[last].Status == status && uint64(list[last].Blocks)+uint64(blocks) <= 0xFFFFFFFF:
			list[last].Blocks += blocks
		case len(list) == most:
			return list, nil
		default:
			list = append(list, scsi.LBAStatus{LBA: off / u.block, Blocks: blocks, Status: status})
		}
		off += run
	}
	return list, nil
}
