package lun

import (
	"sync/atomic"

	"petal/target/scsi"
)

// modes is the mode parameters of a unit that can be changed. They are shared
// by all I_T nexuses and are not saved.
type modes struct{ bits atomic.Uint32 }

const (
	modeDescriptorSense uint32 = 1 << iota // D_SENSE
	modeSoftwareProtect                    // SWP
	modeTaskAborted                        // TAS
)

func (m *modes) descriptorSense() bool { return m.bits.Load()&modeDescriptorSense != 0 }
func (m *modes) softwareProtect() bool { return m.bits.Load()&modeSoftwareProtect != 0 }
func (m *modes) taskAborted() bool     { return m.bits.Load()&modeTaskAborted != 0 }
func (m *modes) reset()                { m.bits.Store(0) }

// set takes over new values and says whether that changes anything.
func (m *modes) set(v scsi.ModeValues) bool {
	var bits uint32
	if v.DescriptorSense {
		bits |= modeDescriptorSense
	}
	if v.SoftwareProtect {
		bits |= modeSoftwareProtect
	}
	if v.TaskAborted {
		bits |= modeTaskAborted
	}
	return m.bits.Swap(bits) != bits
}
