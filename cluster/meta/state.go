package meta

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"petal/placement"
)

// ID is a UUID.
type ID [16]byte

// State is everything that is agreed upon. It is immutable; see package doc.
// The zero State is the one before the first command.
type State struct {
	index uint64 // of the last entry of the log that is in it
	term  uint64

	clusterID  ID
	name       string
	times      uint32 // permille of the default intervals; 0: nobody said
	nextFamily placement.Family
	nextServer placement.Server
	nextGMap   uint32
	nextEvent  uint64
	servers    map[placement.Server]*Server
	gmaps      map[uint32]*placement.GMap
	links      map[placement.LinkID]*Link // those that are not as they began
	conf       Conf
	sessions   map[placement.Server]session
	tokens     map[string]Token // by hash
	events     []*Event         // oldest first, at most MaxEvents
	caCert     []byte
	caKey      []byte // sealed

	now          int64 // unix ms; while a command is applied: when it was proposed
	families     map[placement.Family]*Family
	disks        map[ID]*Disk
	diskNames    map[string]ID
	targets      map[string]*Target
	discovery    CHAP
	reservations map[ID]Reservation
	retired      map[retiredKey]ID
}

// Family is a disk with its snapshots and clones: a tree of epoch nodes.
type Family struct {
	ID       placement.Family
	GMap     uint32
	NextNode placement.Node
	Nodes    []EpochNode
	Dropped  bool               // no disk uses it; its space is being freed
	Freed    []placement.Server // of a dropped one: who has nothing of it left, ascending
}

// EpochNode is where one version of a family's data is written.
type EpochNode struct {
	ID, Parent placement.Node // Parent is zero for the first
	Frozen     bool           // a snapshot; takes no more writes
}

// Lineage returns the nodes that a read at node sees, newest first: node and
// its ancestors.
func (f *Family) Lineage(node placement.Node) []placement.Node {
	var out []placement.Node
	for node != 0 {
		i := slices.IndexFunc(f.Nodes, func(n EpochNode) bool { return n.ID == node })
		if i < 0 || len(out) > len(f.Nodes) {
			break
		}
		out = append(out, node)
		node = f.Nodes[i].Parent
	}
	return out
}

// Disk is a virtual disk.
type Disk struct {
	ID        ID // never changes and is never reused: NAA and serial number come from it
	Name      string
	Size      uint64 // bytes, a multiple of BlockSize
	BlockSize int    // 512 or 4096
	WriteBack bool
	ReadOnly  bool
	Family    placement.Family
	Node      placement.Node // where new writes go
	VVer      uint64         // bumped by whatever ops in flight must notice
	Revoked   uint64         // the VVer at which rights were last taken away (reservations, reset): an op older than that is not resent
	Resets    uint64         // how often the logical unit was reset
	Created   time.Time
}

// LUN maps a number of a target to a disk.
type LUN struct {
	Number uint16
	Disk   ID
}

// CHAP is an account for one-way and, with MutualUser, mutual authentication.
// The secrets are sealed (Unseal). The zero CHAP asks for none.
type CHAP struct {
	User         string
	Secret       []byte
	MutualUser   string
	MutualSecret []byte
}

// Enabled reports whether authentication is asked for.
func (c CHAP) Enabled() bool { return c.User != "" }

// Target is an iSCSI target.
type Target struct {
	Name string
	LUNs []LUN    // by number
	ACL  []string // initiator names that may log in; empty: all
	CHAP CHAP
}

// Reservation is the versioned value behind a unit's reservations.
type Reservation struct {
	Version uint64
	Value   []byte
}

type retiredKey struct {
	target string
	lun    uint16
}

// Index is the place in the log of the last command applied. It grows with
// every change.
func (s *State) Index() uint64 { return s.index }

// ClusterID is the cluster's identity, zero before it has one.
func (s *State) ClusterID() ID { return s.clusterID }

// Disks returns all disks by name.
func (s *State) Disks() []*Disk {
	return slices.SortedFunc(maps.Values(s.disks), func(a, b *Disk) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
}

// Disk returns the disk of that name, or nil.
func (s *State) Disk(name string) *Disk {
	id, ok := s.diskNames[name]
	if !ok {
		return nil
	}
	return s.disks[id]
}

// DiskByID returns the disk with that id, or nil.
func (s *State) DiskByID(id ID) *Disk { return s.disks[id] }

// Family returns a family, or nil.
func (s *State) Family(id placement.Family) *Family { return s.families[id] }

// Families returns all families by id, the dropped ones too.
func (s *State) Families() []*Family {
	return slices.SortedFunc(maps.Values(s.families), func(a, b *Family) int { return int(a.ID) - int(b.ID) })
}

// Targets returns all targets by name.
func (s *State) Targets() []*Target {
	return slices.SortedFunc(maps.Values(s.targets), func(a, b *Target) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
}

// Target returns the target of that name, or nil.
func (s *State) Target(name string) *Target { return s.targets[name] }

// Exports returns where a disk is mapped: one "target/lun" entry each.
func (s *State) Exports(disk ID) []Export {
	var out []Export
	for _, t := range s.Targets() {
		for _, l := range t.LUNs {
			if l.Disk == disk {
				out = append(out, Export{Target: t.Name, LUN: l.Number})
			}
		}
	}
	return out
}

// Export is a place where a disk can be reached.
type Export struct {
	Target string
	LUN    uint16
}

// Discovery is the account that discovery sessions need, if any.
func (s *State) Discovery() CHAP { return s.discovery }

// Reservation returns the reservation value of a disk; version 0 is none yet.
func (s *State) Reservation(disk ID) Reservation { return s.reservations[disk] }

// clone returns a copy whose maps may be changed; what they point to is
// shared and must be replaced, not modified.
func (s *State) clone() *State {
	n := *s
	n.servers = cloneMap(s.servers)
	n.gmaps = cloneMap(s.gmaps)
	n.links = cloneMap(s.links)
	n.sessions = cloneMap(s.sessions)
	n.tokens = cloneMap(s.tokens)
	n.families = cloneMap(s.families)
	n.disks = cloneMap(s.disks)
	n.diskNames = cloneMap(s.diskNames)
	n.targets = cloneMap(s.targets)
	n.reservations = cloneMap(s.reservations)
	n.retired = cloneMap(s.retired)
	return &n
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}
