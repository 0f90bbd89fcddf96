package lun

import (
	"math/bits"
	"sync/atomic"

	"petal/target/scsi"
)

// attention is a kind of unit attention condition. The kinds are in the order
// in which they are reported: SAM-5 5.14 wants the resets first, the gravest
// of them ahead.
type attention uint8

const (
	attentionPowerOn attention = iota
	attentionHardReset
	attentionLUReset
	attentionNexusLoss
	attentionCommandsCleared
	attentionReservationsPreempted
	attentionReservationsReleased
	attentionRegistrationsPreempted
	attentionModeChanged
	attentionALUAChanged
	attentionCapacityChanged
	attentionLUNsChanged
	attentionSoftThreshold
	attentionCount
)

var attentionCodes = [attentionCount]scsi.Code{
	attentionPowerOn:                scsi.CodePowerOnOrReset,
	attentionHardReset:              scsi.CodeBusReset,
	attentionLUReset:                scsi.CodeBusDeviceReset,
	attentionNexusLoss:              scsi.CodeNexusLoss,
	attentionCommandsCleared:        scsi.CodeCommandsCleared,
	attentionReservationsPreempted:  scsi.CodeReservationsPreempted,
	attentionReservationsReleased:   scsi.CodeReservationsReleased,
	attentionRegistrationsPreempted: scsi.CodeRegistrationsPreempted,
	attentionModeChanged:            scsi.CodeModeParametersChanged,
	attentionALUAChanged:            scsi.CodeALUAStateChanged,
	attentionCapacityChanged:        scsi.CodeCapacityChanged,
	attentionLUNsChanged:            scsi.CodeReportedLUNsChanged,
	attentionSoftThreshold:          scsi.CodeSoftThreshold,
}

// resets is the attentions that make all pending ones of lower precedence
// moot: whoever hears of a reset assumes everything has changed.
const resets = 1<<attentionPowerOn | 1<<attentionHardReset | 1<<attentionLUReset

// attentions is the pending unit attention conditions of one I_T_L nexus.
// Safe for concurrent use; the zero value is empty.
type attentions struct{ bits atomic.Uint32 }

// establish adds a condition. One that is pending already is not repeated
// (SAM-5 5.14.1 allows it).
func (a *attentions) establish(k attention) { a.bits.Or(1 << k) }

func (a *attentions) clear(k attention) { a.bits.And(^uint32(1 << k)) }

func (a *attentions) pending() bool { return a.bits.Load() != 0 }

// take removes the condition of highest precedence and returns its sense data.
func (a *attentions) take() (s scsi.Sense, ok bool) {
	for {
		old := a.bits.Load()
		if old == 0 {
			return s, false
		}
		k := attention(bits.TrailingZeros32(old))
		rest := old &^ (1 << k)
		if resets&(1<<k) != 0 {
			rest &^= resets | 1<<attentionNexusLoss
		}
		if a.bits.CompareAndSwap(old, rest) {
			return scsi.Sense{Key: scsi.KeyUnitAttention, Code: attentionCodes[k]}, true
		}
	}
}
