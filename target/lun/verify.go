package lun

import (
	"bytes"

	"petal/target/scsi"
)

// BYTCHK of VERIFY and WRITE AND VERIFY (SBC-3 table 77).
const (
	bytchkNone     = 0 // verify the medium only
	bytchkCompare  = 1 // compare with data-out, block by block
	bytchkReserved = 2
	bytchkOne      = 3 // compare every block with one block of data-out
)

// beginVerify checks VERIFY and takes the data to compare with.
func beginVerify(c *Command) {
	length, ok := c.checkTransfer()
	if !ok {
		return
	}
	c.n = length
	switch scsi.CDB(c.CDB).Bytchk() {
	case bytchkReserved:
		c.badField(1, 2)
	case bytchkCompare:
		c.takeData(length)
	case bytchkOne:
		if length > 0 {
			c.takeData(int(c.path.unit.block))
		}
	}
}

// takeData asks for data-out that is not to be written as it is, and so needs
// memory of its own. All of it must come: there is no meaning to a part.
func (c *Command) takeData(n int) {
	if c.Expected != n {
		c.illegal(scsi.CodeInvalidFieldInIU)
		return
	}
	c.OutLen = n
	if n == 0 {
		return
	}
	c.param = make([]byte, n)
	c.one[0] = c.param
	c.Out = c.one[:1]
}

func runVerify(c *Command) {
	if !c.gotAll() {
		return
	}
	go func() { c.endCompare(c.compare(c.param)) }()
}

// compare reads the command's range and compares it with want: as much as the
// range, or one block that all blocks are compared with, or nothing. differs
// is the offset in the range of the first byte that differs, or -1.
func (c *Command) compare(want []byte) (differs int64, err error) {
	differs = -1
	err = pieces(c.off, uint64(c.n), pieceMax, func(off uint64, n int, at uint64) error {
		if differs >= 0 {
			return nil
		}
		return c.read(off, n, func(vec [][]byte) {
			differs = compareVectors(vec, want, at, len(want) < c.n)
		})
	})
	return differs, err
}

// compareVectors compares vectors that begin at offset at of a range with want,
// which repeats if cyclic is set. It returns the offset of the first byte that
// differs, or -1.
func compareVectors(vec [][]byte, want []byte, at uint64, cyclic bool) int64 {
	if len(want) == 0 {
		return -1
	}
	for _, v := range vec {
		for len(v) > 0 {
			from := at
			if cyclic {
				from %= uint64(len(want))
			}
			k := min(len(v), len(want)-int(from))
			if !bytes.Equal(v[:k], want[from:][:k]) {
				for i := range k {
					if v[i] != want[int(from)+i] {
						return int64(at) + int64(i)
					}
				}
			}
			v, at = v[k:], at+uint64(k)
		}
	}
	return -1
}

// endCompare ends a command after its comparison. INFORMATION is the offset of
// the first byte that differs (SBC-3 5.2 wants so of COMPARE AND WRITE).
func (c *Command) endCompare(differs int64, err error) {
	if err == nil && differs >= 0 {
		c.finishCheck(miscompare(uint64(differs)))
		return
	}
	c.end(err)
}

func miscompare(at uint64) scsi.Sense {
	return scsi.Sense{Key: scsi.KeyMiscompare, Code: scsi.CodeMiscompare, HasInfo: true, Info: at}
}

func beginWriteVerify(c *Command) {
	if scsi.CDB(c.CDB).Bytchk() == bytchkReserved || scsi.CDB(c.CDB).Bytchk() == bytchkOne {
		c.badField(1, 2)
		return
	}
	beginWrite(c)
	c.fua = true // verified is what the medium holds
}

// runWriteVerify writes, reads back, which checks the stored checksums, and
// with BYTCHK compares. The disk takes the data over when it writes, so the
// comparison needs a copy.
func runWriteVerify(c *Command) {
	if !c.gotAll() {
		return
	}
	if c.n == 0 {
		c.finish(scsi.StatusGood)
		return
	}
	var want []byte
	if scsi.CDB(c.CDB).Bytchk() == bytchkCompare {
		want = bytes.Join(c.Out, nil)
	}
	loan := c.loan
	c.loan, c.Out = nil, nil
	c.path.unit.disk.Write(loan, true, func(err error) {
		if err != nil {
			c.diskError(err)
			return
		}
		go func() { c.endCompare(c.compare(want)) }()
	})
}

// beginCompareAndWrite checks COMPARE AND WRITE. Its data-out is twice the
// range: what to compare, then what to write.
func beginCompareAndWrite(c *Command) {
	blocks := scsi.CDB(c.CDB).Blocks()
	if blocks > uint32(c.path.unit.limits().MaxCompareAndWrite) {
		c.badField(13, -1)
		return
	}
	length, ok := c.checkTransfer()
	if !ok || !c.checkWritable() {
		return
	}
	if c.Expected != 2*length {
		c.badField(13, -1)
		return
	}
	c.n = length
	c.takeData(2 * length)
}

// runCompareAndWrite is one step of the disk, atomic on every node. It is never
// repeated: the first attempt may have taken effect.
func runCompareAndWrite(c *Command) {
	if !c.gotAll() {
		return
	}
	if c.n == 0 {
		c.finish(scsi.StatusGood)
		return
	}
	c.path.unit.disk.CompareAndWrite(c.off, c.param[:c.n], c.param[c.n:], func(differs int, err error) {
		if err != nil {
			c.diskError(err)
			return
		}
		c.endCompare(int64(differs), nil)
	})
}

func beginOrWrite(c *Command) {
	length, ok := c.checkTransfer()
	if !ok || !c.checkWritable() {
		return
	}
	c.n = length
	c.takeData(length)
}

// runOrWrite ors data-out into the medium (SBC-3 5.6), block by physical block,
// each in one atomic step: if the medium has changed between read and write, again.
func runOrWrite(c *Command) {
	if !c.gotAll() {
		return
	}
	go func() { c.end(pieces(c.off, uint64(c.n), physical, c.orPiece)) }()
}

func (c *Command) orPiece(off uint64, n int, at uint64) error {
	old, data := make([]byte, n), make([]byte, n)
	for {
		err := c.read(off, n, func(vec [][]byte) {
			k := 0
			for _, v := range vec {
				k += copy(old[k:], v)
			}
		})
		if err != nil {
			return err
		}
		for i := range data {
			data[i] = old[i] | c.param[at:][i]
		}
		differs, err := c.swap(off, old, data)
		if err != nil || differs < 0 {
			return err
		}
	}
}

// swap is CompareAndWrite, waited for.
func (c *Command) swap(off uint64, old, data []byte) (differs int, err error) {
	err = c.once(func(done func(error)) {
		c.path.unit.disk.CompareAndWrite(off, old, data, func(d int, e error) {
			differs = d
			done(e)
		})
	})
	return differs, err
}

// beginWriteAtomic checks WRITE ATOMIC: the range must be one that the disk
// writes in one step.
func beginWriteAtomic(c *Command) {
	length, ok := c.checkTransfer()
	if !ok || !c.checkWritable() {
		return
	}
	l := c.path.unit.limits()
	blocks := uint32(scsi.CDB(c.CDB).Blocks())
	switch {
	case c.CDB[10]|c.CDB[11] != 0: // ATOMIC BOUNDARY
		c.badField(10, -1)
	case blocks > l.MaxAtomic || blocks%l.AtomicGranularity != 0:
		c.badField(12, -1)
	case length > 0 && (c.lba%uint64(l.AtomicAlignment) != 0 || c.off/chunk != (c.off+uint64(length)-1)/chunk):
		c.badField(2, -1) // not aligned, or across a chunk's end
	case c.Expected < length:
		c.illegal(scsi.CodeInvalidFieldInIU) // part of it would not be atomic
	default:
		c.lend(length)
	}
}
