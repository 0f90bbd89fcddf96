package appliance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"petal/appliance/config"
	"petal/cluster"
	"petal/cluster/meta"
	"petal/target"
	"petal/target/lun"
	"petal/target/scsi"
)

// Here the two sides meet.
var (
	_ lun.Disk         = (*cluster.Volume)(nil)
	_ lun.Reservations = reservations{}
)

// reservations is cluster.Reservations in lun's terms.
type reservations struct{ *cluster.Reservations }

func (r reservations) Store(ctx context.Context, value []byte, version uint64, revokes bool) error {
	err := r.Reservations.Store(ctx, value, version, revokes)
	if errors.Is(err, meta.ErrStale) {
		return lun.ErrStale
	}
	return err
}

// exports keeps what the target serves equal to what was agreed. Safe for
// concurrent use.
//
// Invariant between calls of apply: for each disk of the state there is one
// unit, for each target one device with the units of its LUNs, except where
// problems says why not.
type exports struct {
	node   *cluster.Node
	server *target.Server
	log    *slog.Logger
	own    []config.Portal // of this node

	mu       sync.Mutex
	leased   bool
	groups   []scsi.PortGroup // of all nodes
	index    uint64           // of the state that was applied last
	units    map[meta.ID]*unit
	targets  map[string]*exported
	problems map[string]string // thing -> why it is not served

	// names is for metrics: target -> LUN -> disk name. Replaced, never changed.
	names atomic.Pointer[map[string]map[uint16]string]
}

type unit struct {
	*lun.Unit
	disk   *meta.Disk
	resets atomic.Int64 // that this node has under way
}

type exported struct {
	device *lun.Device
	luns   map[uint16]meta.ID
	acl    []string
	chap   cluster.Account
	served bool // the server knows it
}

func newExports(node *cluster.Node, server *target.Server, own []config.Portal, log *slog.Logger) *exports {
	return &exports{node: node, server: server, own: own, log: log,
		units: map[meta.ID]*unit{}, targets: map[string]*exported{}, problems: map[string]string{}}
}

// apply makes the target serve state, unless a newer one has been applied
// already. It returns when logins and commands see it.
func (e *exports) apply(state *meta.State) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.index > state.Index() || e.index == state.Index() && e.names.Load() != nil {
		return
	}
	e.index = state.Index()
	clear(e.problems)
	if e.witness(state) {
		return
	}
	groups, peers := nodePorts(state, e.node.Self(), e.own, e.leased)
	e.server.SetPeers(peers)
	e.groups = groups
	for _, d := range state.Disks() {
		e.applyDisk(d)
	}
	for _, t := range state.Targets() {
		e.applyTarget(t)
	}
	for name := range e.targets {
		if state.Target(name) == nil {
			e.removeTarget(name)
		}
	}
	for id, u := range e.units {
		if state.DiskByID(id) == nil {
			u.Close()
			delete(e.units, id)
		}
	}
	e.setPorts()
	e.applyDiscovery(state)
	e.publishNames(state)
}

// witness reports whether this node serves nothing.
func (e *exports) witness(state *meta.State) bool {
	srv := state.Server(e.node.Self())
	if srv == nil || srv.Kind == meta.Witness {
		e.names.Store(&map[string]map[uint16]string{})
		return true
	}
	return false
}

// setPorts tells all devices the ports of all nodes.
func (e *exports) setPorts() {
	for _, x := range e.targets {
		x.device.SetPorts(uint16(e.node.Self()), e.groups)
	}
}

// setLeased says whether this node may serve. Initiators that come back after it
// could not hear that access states have changed.
func (e *exports) setLeased(leased bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.leased == leased {
		return
	}
	e.leased = leased
	e.groups, _ = nodePorts(e.node.State(), e.node.Self(), e.own, leased)
	e.setPorts()
}

// applyDisk makes the unit of a new disk, and tells initiators what changed of
// an old one.
func (e *exports) applyDisk(d *meta.Disk) {
	old := e.units[d.ID]
	if old == nil {
		u, err := e.newUnit(d)
		if err != nil {
			e.problem(fmt.Sprintf("disk %q", d.Name), err)
			return
		}
		e.units[d.ID] = u
		return
	}
	if old.disk.Resets != d.Resets && old.resets.Load() == 0 {
		old.ResetElsewhere()
	}
	if old.disk.Size != d.Size {
		old.CapacityChanged()
	}
	if old.disk.WriteBack != d.WriteBack || old.disk.ReadOnly != d.ReadOnly {
		old.ModeChanged()
	}
	old.disk = d
}

func (e *exports) newUnit(d *meta.Disk) (*unit, error) {
	volume, err := e.node.Volume(d.ID)
	if err != nil {
		return nil, err
	}
	u := &unit{disk: d}
	u.Unit, err = lun.NewUnit(lun.UnitConfig{Disk: volume, Reservations: reservations{e.node.Reservations(d.ID)}, UUID: d.ID, Name: d.Name,
		Reset: func(done func(error)) { e.reset(u, d.ID, done) }})
	return u, err
}

// resetLimit is how long the other nodes may take to give up the commands that
// came before a reset.
const resetLimit = 15 * time.Second

// reset makes sure that no command which any node took before it has an effect
// any more.
func (e *exports) reset(u *unit, id meta.ID, done func(error)) {
	u.resets.Add(1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), resetLimit)
		defer cancel()
		err := e.node.Reset(ctx, id)
		// The state that has it was applied before, or is now.
		e.apply(e.node.State())
		u.resets.Add(-1)
		done(err)
	}()
}

func (e *exports) applyTarget(t *meta.Target) {
	x := e.targets[t.Name]
	if x == nil {
		x = &exported{device: lun.NewDevice(t.Name), luns: map[uint16]meta.ID{}}
		x.device.SetPorts(uint16(e.node.Self()), e.groups) // before anybody is attached
		e.targets[t.Name] = x
	}
	e.applyLUNs(x, t)
	chap, err := e.node.OpenCHAP(t.Name, t.CHAP)
	if err == nil && (!x.served || !slices.Equal(x.acl, t.ACL) || x.chap != chap) {
		x.acl, x.chap, x.served = t.ACL, chap, true
		err = e.server.SetTarget(t.Name, target.Target{Device: x.device, ACL: t.ACL, CHAP: chapOf(chap)})
	}
	if err != nil {
		// Its secret can't be read, say: better nobody logs in than everybody.
		e.problem(fmt.Sprintf("target %q", t.Name), err)
		e.server.RemoveTarget(t.Name)
		x.served = false
	}
}

func (e *exports) applyLUNs(x *exported, t *meta.Target) {
	want := map[uint16]meta.ID{}
	for _, l := range t.LUNs {
		want[l.Number] = l.Disk
	}
	for n, id := range x.luns {
		if want[n] != id {
			x.device.RemoveUnit(n)
			delete(x.luns, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(want)) {
		u := e.units[want[n]]
		if _, there := x.luns[n]; there || u == nil {
			continue
		}
		x.device.SetUnit(n, u.Unit)
		x.luns[n] = want[n]
	}
}

func (e *exports) removeTarget(name string) {
	x := e.targets[name]
	if x.served {
		e.server.RemoveTarget(name)
	}
	for n := range x.luns {
		x.device.RemoveUnit(n)
	}
	delete(e.targets, name)
}

func (e *exports) applyDiscovery(state *meta.State) {
	chap, err := e.node.OpenCHAP("", state.Discovery())
	if err == nil {
		err = e.server.SetDiscovery(chapOf(chap))
	}
	if err != nil {
		e.problem("discovery", err)
	}
}

func chapOf(a cluster.Account) target.CHAP {
	return target.CHAP{User: a.User, Secret: a.Secret, MutualUser: a.MutualUser, MutualSecret: a.MutualSecret}
}

func (e *exports) problem(thing string, err error) {
	e.problems[thing] = err.Error()
	e.log.Error("not served", "thing", thing, "err", err)
}

// Problems lists what is not served, and why.
func (e *exports) Problems() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, thing := range slices.SortedFunc(maps.Keys(e.problems), cmp.Compare) {
		out = append(out, fmt.Sprintf("%s is not served: %s", thing, e.problems[thing]))
	}
	return out
}

func (e *exports) publishNames(state *meta.State) {
	names := map[string]map[uint16]string{}
	for _, t := range state.Targets() {
		names[t.Name] = map[uint16]string{}
		for _, l := range t.LUNs {
			if d := state.DiskByID(l.Disk); d != nil {
				names[t.Name][l.Number] = d.Name
			}
		}
	}
	e.names.Store(&names)
}
