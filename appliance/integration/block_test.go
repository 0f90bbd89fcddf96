package integration

import (
	"bytes"
	"context"
	"time"

	"petal/target/initiator"
)

// disk is the demo's disk as an initiator has it through a node.
func (d *demo) disk(node int) *initiator.Disk {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := initiator.Dial(ctx, initiator.URL{Host: d.portal(node), Target: "iqn.2026-11.petal:demo"}, initiator.Options{})
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

// blockOf is 4 KiB with a text in it.
func blockOf(text string) []byte { return append([]byte(text), make([]byte, 4096-len(text))...) }

// read counts the texts at the beginnings of the first 16 chunks, a quarter of
// which lies on each of four links, read through a node.
func (d *demo) read(node int) map[string]int {
	d.t.Helper()
	disk, texts, block := d.disk(node), map[string]int{}, make([]byte, 4096)
	for chunk := range uint64(16) {
		if err := disk.Read(context.Background(), chunk*128, block); err != nil {
			d.t.Fatalf("through n%d, chunk %d: %v", node, chunk, err)
		}
		texts[string(bytes.TrimRight(block, "\x00"))]++
	}
	return texts
}
