package login

import (
	"strconv"

	"petal/target/iscsi"
)

// Params are the operational parameters of a session (section 13). Lengths are
// bytes, times seconds.
type Params struct {
	HeaderDigest, DataDigest  bool // CRC32C
	MaxRecv                   int  // longest data segment that we take: what we declared
	MaxSend                   int  // longest that the initiator takes: what it declared
	InitialR2T, ImmediateData bool
	MaxBurst, FirstBurst      int
	MaxOutstandingR2T         int
	Time2Wait, Time2Retain    int
	TaskReporting             string // RFC3720 or ResponseFence (section 13.23)
}

// kind says how the result of a key is computed (section 6.2).
type kind uint8

const (
	declare  kind = iota // the initiator states it, no answer is due
	and                  // Yes if both say Yes
	or                   // Yes if either says Yes
	minimum              // the lesser number
	maximum              // the greater number
	list                 // the initiator's first choice that we have
	fixed                // always the same answer
	received             // ours to say: an initiator must not
)

// scope says what a key's value holds for (section 13).
type scope uint8

const (
	ofSession scope = iota
	ofConnection
)

// when is a set of the times at which a key may come.
type when uint8

const (
	inSecurity when = 1 << iota
	inOperational
	inFullFeature

	inLogin  = inSecurity | inOperational
	anywhere = inLogin | inFullFeature
)

// row is all about a text key.
type row struct {
	name      string
	scope     scope
	when      when
	discovery bool // has a meaning in a discovery session; otherwise its answer is Irrelevant
	def       string
	kind      kind
	lo, hi    uint64   // range of a number
	ours      string   // our value for the computation; for fixed the answer
	choices   []string // what we have of a list
	set       func(p *Params, value string)
}

const digitsMax24 = iscsi.MaxDataSegmentField

var digestNames = []string{"CRC32C", "None"}

// rows are the keys we understand, those of RFC 7143, section 13, RFC 7144,
// section 7, and RFC 4850; without those of the security stage (auth.go) and
// SendTargets (text.go). They are answered in this order, so MaxBurstLength
// stands before FirstBurstLength, which it bounds.
var rows = []row{
	{name: "InitiatorName", when: inLogin, discovery: true, kind: declare},
	{name: "InitiatorAlias", when: anywhere, discovery: true, kind: declare},
	{name: "TargetName", when: inLogin, discovery: true, kind: declare},
	{name: "SessionType", when: inLogin, discovery: true, def: "Normal", kind: declare},
	{name: "X#NodeArchitecture", when: anywhere, discovery: true, kind: declare},
	{name: "TargetAlias", when: anywhere, discovery: true, kind: received},
	{name: "TargetAddress", when: anywhere, discovery: true, kind: received},
	{name: "TargetPortalGroupTag", when: anywhere, discovery: true, kind: received},

	{name: "HeaderDigest", scope: ofConnection, when: inOperational, discovery: true, def: "None", kind: list, choices: digestNames,
		set: func(p *Params, v string) { p.HeaderDigest = v == "CRC32C" }},
	{name: "DataDigest", scope: ofConnection, when: inOperational, discovery: true, def: "None", kind: list, choices: digestNames,
		set: func(p *Params, v string) { p.DataDigest = v == "CRC32C" }},
	{name: "MaxRecvDataSegmentLength", scope: ofConnection, when: anywhere, discovery: true, def: "8192", kind: declare, lo: 512, hi: digitsMax24,
		set: func(p *Params, v string) { p.MaxSend = number(v) }},
	{name: "MaxConnections", when: inOperational, def: "1", kind: minimum, lo: 1, hi: 65535, ours: "1"},
	{name: "InitialR2T", when: inOperational, def: "Yes", kind: or, ours: "No",
		set: func(p *Params, v string) { p.InitialR2T = v == "Yes" }},
	{name: "ImmediateData", when: inOperational, def: "Yes", kind: and, ours: "Yes",
		set: func(p *Params, v string) { p.ImmediateData = v == "Yes" }},
	{name: "MaxBurstLength", when: inOperational, def: "262144", kind: minimum, lo: iscsi.MinBurst, hi: digitsMax24, ours: strconv.Itoa(iscsi.MaxBurst),
		set: func(p *Params, v string) { p.MaxBurst = number(v) }},
	{name: "FirstBurstLength", when: inOperational, def: "65536", kind: minimum, lo: iscsi.MinBurst, hi: digitsMax24, ours: strconv.Itoa(iscsi.FirstBurst),
		set: func(p *Params, v string) { p.FirstBurst = number(v) }},
	{name: "DefaultTime2Wait", when: inOperational, discovery: true, def: "2", kind: maximum, lo: 0, hi: 3600, ours: "2",
		set: func(p *Params, v string) { p.Time2Wait = number(v) }},
	{name: "DefaultTime2Retain", when: inOperational, discovery: true, def: "20", kind: minimum, lo: 0, hi: 3600, ours: "20",
		set: func(p *Params, v string) { p.Time2Retain = number(v) }},
	{name: "MaxOutstandingR2T", when: inOperational, def: "1", kind: minimum, lo: 1, hi: 65535, ours: strconv.Itoa(iscsi.MaxOutstandingR2T),
		set: func(p *Params, v string) { p.MaxOutstandingR2T = number(v) }},
	{name: "DataPDUInOrder", when: inOperational, def: "Yes", kind: or, ours: "Yes"},
	{name: "DataSequenceInOrder", when: inOperational, def: "Yes", kind: or, ours: "Yes"},
	{name: "ErrorRecoveryLevel", when: inOperational, discovery: true, def: "0", kind: minimum, lo: 0, hi: 2, ours: "0"},
	{name: "TaskReporting", when: inOperational, def: "RFC3720", kind: list, choices: []string{"ResponseFence", "RFC3720"},
		set: func(p *Params, v string) { p.TaskReporting = v }},
	{name: "iSCSIProtocolLevel", when: inOperational, def: "1", kind: minimum, lo: 0, hi: 31, ours: "1"},

	// Section 13.25: obsoleted, answered with what the old standard lets mean no.
	{name: "OFMarker", when: inOperational, discovery: true, def: "No", kind: fixed, ours: "No"},
	{name: "IFMarker", when: inOperational, discovery: true, def: "No", kind: fixed, ours: "No"},
	{name: "OFMarkInt", when: inOperational, discovery: true, kind: fixed, ours: "Reject"},
	{name: "IFMarkInt", when: inOperational, discovery: true, kind: fixed, ours: "Reject"},
}

// number is the value of a number that has been checked.
func number(v string) int {
	n, _ := parseNumber(v)
	return int(n)
}

// parseNumber reads a decimal or hexadecimal constant (section 6.1).
func parseNumber(v string) (uint64, bool) {
	digits, base := v, 10
	if len(v) > 2 && v[0] == '0' && (v[1] == 'x' || v[1] == 'X') {
		digits, base = v[2:], 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	return n, err == nil
}
