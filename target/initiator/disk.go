package initiator

import (
	"context"
	"errors"
	"fmt"

	"petal/target/scsi"
)

// Disk is one logical unit of a session, with calls that wait. It retries unit
// attentions, and nothing else.
type Disk struct {
	Session  *Session
	LUN      uint64 // the LUN field
	Capacity scsi.Capacity
}

// unitAttentions bounds how many unit attentions in a row are retried.
const unitAttentions = 8

// OpenDisk clears pending unit attentions of the URL's logical unit and reads
// its capacity.
func OpenDisk(ctx context.Context, s *Session) (*Disk, error) {
	d := &Disk{Session: s, LUN: s.LUN()}
	if _, err := d.Command(ctx, TestUnitReady(), nil, nil); err != nil {
		return nil, err
	}
	data := make([]byte, 32)
	n, err := d.Command(ctx, ReadCapacity16(len(data)), nil, data)
	if err != nil {
		return nil, err
	}
	c, ok := scsi.ParseCapacity16(data[:n])
	if !ok || c.BlockLength == 0 || c.BlockLength%512 != 0 {
		return nil, fmt.Errorf("initiator: READ CAPACITY (16) answered % x", data[:n])
	}
	d.Capacity = c
	return d, nil
}

// Command runs one command and returns how many bytes came into in. The error
// is a *StatusError if the status is not GOOD.
func (d *Disk) Command(ctx context.Context, cdb CDB, out, in []byte) (int, error) {
	t := &Task{}
	for range unitAttentions {
		t.LUN, t.CDB, t.Out, t.In = d.LUN, cdb, out, in
		err := d.Session.Do(ctx, t)
		if err == nil || !t.UnitAttention() {
			return t.InLen, err
		}
	}
	return 0, t.Failure()
}

// blocks is the count of blocks in n bytes.
func (d *Disk) blocks(n int) uint32 { return uint32(n) / d.Capacity.BlockLength }

// Read reads len(p) bytes, whole blocks, from lba on.
func (d *Disk) Read(ctx context.Context, lba uint64, p []byte) error {
	n, err := d.Command(ctx, Read16(lba, d.blocks(len(p))), nil, p)
	if err == nil && n != len(p) {
		return fmt.Errorf("initiator: READ (16) of %d bytes returned %d", len(p), n)
	}
	return err
}

// Write writes p, whole blocks, from lba on.
func (d *Disk) Write(ctx context.Context, lba uint64, p []byte) error {
	_, err := d.Command(ctx, Write16(lba, d.blocks(len(p))), p, nil)
	return err
}

// Sync is SYNCHRONIZE CACHE of the whole unit.
func (d *Disk) Sync(ctx context.Context) error {
	_, err := d.Command(ctx, SyncCache10(0, 0), nil, nil)
	return err
}

// Unmap frees blocks.
func (d *Disk) Unmap(ctx context.Context, extents ...Extent) error {
	list := UnmapList(extents...)
	_, err := d.Command(ctx, Unmap(uint16(len(list))), list, nil)
	return err
}

// cachingPage is the mode page with WCE (SBC-3, 6.4.5).
const cachingPage = 0x08

// WriteCache reports whether the unit says that it has a volatile write cache
// (WCE of the caching mode page).
func (d *Disk) WriteCache(ctx context.Context) (bool, error) {
	page, err := d.ModePage(ctx, cachingPage)
	if err != nil {
		return false, err
	}
	return page[2]&0x04 != 0, nil
}

// SetWriteCache changes WCE with MODE SELECT.
func (d *Disk) SetWriteCache(ctx context.Context, on bool) error {
	page, err := d.ModePage(ctx, cachingPage)
	if err != nil {
		return err
	}
	list := append(make([]byte, 4), page...)
	list[4] &^= 0x80 // PS is reserved in MODE SELECT
	list[6] &^= 0x04
	if on {
		list[6] |= 0x04
	}
	_, err = d.Command(ctx, ModeSelect6(uint8(len(list))), list, nil)
	return err
}

// ModePage returns the current values of a mode page, its header included.
func (d *Disk) ModePage(ctx context.Context, page uint8) ([]byte, error) {
	data := make([]byte, 255)
	n, err := d.Command(ctx, ModeSense6(page, uint8(len(data))), nil, data)
	if err != nil {
		return nil, err
	}
	data = data[:n]
	if n < 4 || n < 4+int(data[3])+4 {
		return nil, errors.New("initiator: MODE SENSE (6) data too short")
	}
	return data[4+int(data[3]):], nil
}
