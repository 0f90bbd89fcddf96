package scsi

import (
	"encoding/binary"
	"slices"
)

// Asymmetric access states (SPC-4 5.15.2.1).
const (
	ALUAActiveOptimized    uint8 = 0x0
	ALUAActiveNonOptimized uint8 = 0x1
	ALUAStandby            uint8 = 0x2
	ALUAUnavailable        uint8 = 0x3
)

// PortGroup is one target port group descriptor.
type PortGroup struct {
	State uint8
	Group uint16
	Ports []uint16 // relative target port identifiers
}

// Equal reports whether two descriptors say the same.
func (g PortGroup) Equal(o PortGroup) bool {
	return g.State == o.State && g.Group == o.Group && slices.Equal(g.Ports, o.Ports)
}

// AppendPortGroups appends the parameter data of REPORT TARGET PORT GROUPS
// (SPC-4 6.37.3), with the extended header if it was asked for.
// transitionSeconds is the implicit transition time.
func AppendPortGroups(b []byte, extended bool, transitionSeconds uint8, groups []PortGroup) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	if extended {
		b = append(b, 0x10, transitionSeconds, 0, 0)
	}
	for _, g := range groups {
		// Supported: active/optimized, active/non-optimized, standby,
		// unavailable, transitioning.
		b = append(b, g.State, 0x80|0x08|0x04|0x02|0x01)
		b = binary.BigEndian.AppendUint16(b, g.Group)
		b = append(b, 0, 0x02, 0, uint8(len(g.Ports))) // status: implicitly altered
		for _, p := range g.Ports {
			b = append(b, 0, 0)
			b = binary.BigEndian.AppendUint16(b, p)
		}
	}
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}
