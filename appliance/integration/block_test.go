package integration

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"petal/target/initiator"
	"petal/target/scsi"
)

// disk is the demo's disk as an initiator has it through a node, which logs in again
// when it has lost its connection.
func (d *demo) disk(node int) *initiator.Disk {
	d.t.Helper()
	awaitLogin(d.t, d.urlAt(node))
	ctx, cancel := context.WithTimeout(context.Background(), healLimit)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.URL{Host: d.portal(node), Target: "iqn.2026-11.petal:demo"}, initiator.Options{Reconnect: healLimit})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { s.Close() })
	disk, err := initiator.OpenDisk(ctx, s)
	if err != nil {
		d.t.Fatal(err)
	}
	return disk
}

// patiently has a command done again for as long as the answer is BUSY, as hosts do.
func patiently(t *testing.T, command func() error) {
	t.Helper()
	var err error
	eventually(t, healLimit, "a command that is not BUSY", func() bool {
		err = command()
		answer, ok := errors.AsType[*initiator.StatusError](err)
		return !ok || answer.Status != scsi.StatusBusy
	})
	if err != nil {
		t.Fatal(err)
	}
}

// blockOf is 4 KiB with a text in it.
func blockOf(text string) []byte { return append([]byte(text), make([]byte, 4096-len(text))...) }

// read counts the texts at the beginnings of the first 16 chunks, a quarter of
// which lies on each of four links, read through a node.
func (d *demo) read(node int) map[string]int {
	d.t.Helper()
	disk, texts, block := d.disk(node), map[string]int{}, make([]byte, 4096)
	for chunk := range uint64(16) {
		patiently(d.t, func() error { return disk.Read(context.Background(), chunk*128, block) })
		texts[string(bytes.TrimRight(block, "\x00"))]++
	}
	return texts
}
