package brick

import (
	"math/rand/v2"

	pebblefs "github.com/cockroachdb/pebble/v2/vfs"

	"petal/journal/vfs"
)

// Disk is a brick's disk in memory, which can lose power: for simulation. A
// Manual brick on it does the same each time, to the last byte of FS: what
// Pebble's own goroutines do in Map shows in nothing but time.
type Disk struct {
	FS  *vfs.Memory // all but the map
	Map *pebblefs.MemFS
}

// NewDisk returns an empty disk of so many bytes.
func NewDisk(capacity int64) *Disk {
	return &Disk{vfs.NewMemory(capacity), pebblefs.NewCrashableMem()}
}

// Use makes o the options of a Manual brick on this disk.
func (d *Disk) Use(o *Options) {
	o.FS, o.MapFS, o.Path, o.Manual = d.FS, d.Map, "brick", true
}

// Crash returns the disk as it may be after losing power now. The map keeps what
// is synced and nothing else, which is what the brick's last StepFlushMap has left;
// of the rest a part is kept that depends on seed alone. The disk itself goes on
// unharmed, so the brick on it may be thrown away later.
func (d *Disk) Crash(seed uint64) *Disk {
	none := pebblefs.CrashCloneCfg{UnsyncedDataPercent: 0, RNG: rand.New(rand.NewPCG(seed, 0))}
	return &Disk{d.FS.Crash(seed), d.Map.CrashClone(none)}
}
