package meta

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"petal/cluster/meta/metapb"
	"petal/placement"
)

// Release is the number of this release. A cluster's servers are at most one
// release apart, and commands that a release brought are accepted once every
// member has it:
//
//	1  one node: disks, targets, reservations
//	2  several nodes: members, links, leases, barriers
const Release = 2

// since says which release brought a command, 1 unless it is here.
func since(cmd *metapb.Command) uint32 {
	switch cmd.Kind.(type) {
	case *metapb.Command_Join, *metapb.Command_Leave, *metapb.Command_Confirm, *metapb.Command_UpdateServer, *metapb.Command_Reopen,
		*metapb.Command_Reconfigure, *metapb.Command_Fence, *metapb.Command_FenceConfirm, *metapb.Command_Rejoined, *metapb.Command_Filled,
		*metapb.Command_ForceLink, *metapb.Command_BumpVver, *metapb.Command_CompleteBarrier, *metapb.Command_CreateToken,
		*metapb.Command_DeleteToken, *metapb.Command_SetCa, *metapb.Command_Note, *metapb.Command_BrickFailed:
		return 2
	}
	return 1
}

// enabled refuses commands that some member does not know yet.
func (n *State) enabled(cmd *metapb.Command) error {
	if need := since(cmd); len(n.servers) > 0 && need > n.Release() {
		var old []string
		for _, v := range n.Servers() {
			if v.Release < need {
				old = append(old, v.Name)
			}
		}
		return refuse(ErrInvalid, "command", fmt.Sprintf("it needs release %d of every server, and %s has an older one", need, strings.Join(old, ", ")),
			"upgrade these servers first")
	}
	return nil
}

func serverThing(id placement.Server) string { return fmt.Sprintf("server %d", id) }

// NameOf names a server for people: by its number if it has no name or is no member.
func (n *State) NameOf(id placement.Server) string {
	if v := n.servers[id]; v != nil && v.Name != "" {
		return v.Name
	}
	return serverThing(id)
}

// event adds a line to the cluster's diary.
func (n *State) event(kind string, server placement.Server, format string, args ...any) {
	n.nextEvent++
	e := &Event{Number: n.nextEvent, Time: unixMs(n.now), Kind: kind, Server: server, Text: short(fmt.Sprintf(format, args...))}
	n.events = append(slices.Clone(n.events[max(0, len(n.events)-MaxEvents+1):]), e)
}

// short cuts the text of an event.
func short(text string) string {
	if len(text) > maxEventText {
		return strings.ToValidUTF8(text[:maxEventText], "")
	}
	return text
}

// unixMs is the time of a stamp, the zero Time for 0.
func unixMs(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func toMs(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func (n *State) init(c *metapb.Init) error {
	if n.clusterID != (ID{}) {
		return refuse(ErrExists, "cluster", "", "")
	}
	id, err := idOf(c.ClusterId, "cluster id")
	if err != nil {
		return err
	}
	if err := checkServer(c.ServerName, c.Site, c.Addresses, c.Portals); err != nil {
		return err
	}
	if len(c.Name) > MaxServerName {
		return refuse(ErrInvalid, fmt.Sprintf("cluster name %q", c.Name), "", "use at most 63 characters")
	}
	n.clusterID, n.name, n.times = id, c.Name, c.TimesPermille
	n.nextFamily, n.nextServer, n.nextGMap = 2, 2, 1 // family 1 stays free for the cluster's own use
	n.servers[1] = &Server{ID: 1, Name: c.ServerName, Site: c.Site, Kind: kindOf(c.Kind), Addresses: slices.Clone(c.Addresses),
		Portals: slices.Clone(c.Portals), Release: max(c.Release, 1), Joined: unixMs(n.now)}
	n.event("member", 1, "the cluster begins with server %s", c.ServerName)
	return nil
}

func kindOf(k metapb.ServerKind) ServerKind {
	if k == metapb.ServerKind_WITNESS {
		return Witness
	}
	return Data
}

// join admits a server that showed a token, or one that an administrator
// admits. A newcomer that never got the answer may ask again.
func (n *State) join(c *metapb.Join) error {
	if c.Name == "" {
		return refuse(ErrInvalid, "server name", "it is empty", "give the server a name of 1 to 63 characters")
	}
	if err := checkServer(c.Name, c.Site, c.Addresses, c.Portals); err != nil {
		return err
	}
	thing := fmt.Sprintf("server %q", c.Name)
	if err := n.compatible(thing, 0, c.Release, c.TimesPermille); err != nil {
		return err
	}
	old := n.ServerByName(c.Name)
	if old != nil && (old.Incarnation > 0 || old.Leaving) {
		return refuse(ErrExists, thing, fmt.Sprintf("it is server %d of this cluster", old.ID),
			"give the newcomer another name, or remove the old one first: `petal node remove`")
	}
	// Only who never got the answer may ask again. Addresses are unique: two
	// machines of one name, as cloned ones have, must not become one server.
	if old != nil && !slices.Equal(old.Addresses, c.Addresses) {
		return refuse(ErrExists, thing, fmt.Sprintf("one of that name has joined from %s and was not started yet", strings.Join(old.Addresses, ", ")),
			"give each server a name of its own; if that one will never come, remove it: `petal node remove`")
	}
	if n.nextServer > maxServers {
		return refuse(ErrInUse, thing, fmt.Sprintf("the cluster has had %d servers", maxServers), "begin another cluster: numbers of servers are not used again")
	}
	if err := n.addressesFree(old, c.Addresses); err != nil {
		return err
	}
	if err := n.useToken(c, old != nil); err != nil {
		return err
	}
	srv := Server{ID: n.nextServer, Joined: unixMs(n.now)}
	if old != nil {
		srv = *old
	} else {
		n.nextServer++
	}
	srv.Name, srv.Site, srv.Kind, srv.Release = c.Name, c.Site, kindOf(c.Kind), c.Release
	srv.Addresses, srv.Portals = slices.Clone(c.Addresses), slices.Clone(c.Portals)
	n.servers[srv.ID] = &srv
	n.event("member", srv.ID, "%s server %s joins as number %d", srv.Kind, srv.Name, srv.ID)
	return nil
}

// addressesFree refuses addresses that another member has: messages for one
// would reach the other.
func (n *State) addressesFree(self *Server, addrs []string) error {
	for _, v := range n.Servers() {
		if self != nil && v.ID == self.ID {
			continue
		}
		for _, a := range addrs {
			if slices.Contains(v.Addresses, a) {
				return refuse(ErrInUse, "address "+a, "server "+v.Name+" has it", "give each server an address of its own (listen, advertise)")
			}
		}
	}
	return nil
}

// useToken takes one use of the newcomer's token. One who asks again may show
// the token that it has used.
func (n *State) useToken(c *metapb.Join, again bool) error {
	if len(c.TokenHash) == 0 {
		return nil // the administrator's word
	}
	const advice = "make a new one on a member: `petal cluster token`"
	t, ok := n.tokens[string(c.TokenHash)]
	switch {
	case !ok:
		return refuse(ErrNotFound, "join token", "this cluster has not given it out, or has dropped it", advice)
	case again && slices.Contains(strings.Split(t.UsedBy, ","), c.Name):
		return nil
	case n.now >= t.Expires.UnixMilli():
		return refuse(ErrInvalid, "join token", "it has expired at "+t.Expires.Format(time.RFC3339), advice)
	case t.UsesLeft == 0:
		return refuse(ErrInUse, "join token", "it has been used by "+t.UsedBy, advice)
	}
	t.UsesLeft--
	if t.UsedBy != "" {
		t.UsedBy += ","
	}
	t.UsedBy += c.Name
	n.tokens[string(c.TokenHash)] = t
	return nil
}

// compatible refuses a server that is two releases away from another one, or
// runs by other times: leases are only safe if all agree on how long they last.
func (n *State) compatible(thing string, self placement.Server, release, times uint32) error {
	for _, v := range n.Servers() {
		if v.ID == self || v.Leaving {
			continue
		}
		if release > v.Release+1 || v.Release > release+1 {
			return refuse(ErrInvalid, thing, fmt.Sprintf("it has release %d and server %s has release %d; they must be at most one apart", release, v.Name, v.Release),
				"upgrade one release at a time, all servers")
		}
	}
	if times != 0 && n.times != 0 && times != n.times {
		scale := func(permille uint32) string { return strconv.FormatFloat(float64(permille)/1000, 'f', -1, 64) }
		return refuse(ErrInvalid, thing, fmt.Sprintf("its times are %s times the default ones, the cluster's %s times", scale(times), scale(n.times)),
			fmt.Sprintf("set [time] as on the other servers (scale = %s): the cluster's times were chosen at the first start of its first server, and stay", scale(n.times)))
	}
	return nil
}

// leave begins to take a server out. It is gone once raft has let go of it.
func (n *State) leave(c *metapb.Leave) error {
	old := n.ServerByName(c.Name)
	thing := fmt.Sprintf("server %q", c.Name)
	if old == nil {
		return refuse(ErrNotFound, thing, "", "see `petal node list`")
	}
	if old.Leaving {
		return nil
	}
	if err := n.dispensable(old, thing); err != nil {
		return err
	}
	srv := *old
	srv.Leaving = true
	n.servers[srv.ID] = &srv
	n.event("member", srv.ID, "server %s is being removed", srv.Name)
	n.forget()
	return nil
}

// dispensable refuses to remove a server that something would be lost with.
func (n *State) dispensable(v *Server, thing string) error {
	staying := 0
	for _, o := range n.servers {
		if o.ID != v.ID && !o.Leaving {
			staying++
		}
	}
	voters := slices.DeleteFunc(slices.Clone(n.conf.Voters), func(id placement.Server) bool { return id == v.ID })
	switch {
	case staying == 0:
		return refuse(ErrInUse, thing, "it is the last one: the cluster and all its disks would be lost", "stop it instead")
	case n.conf.Voter(v.ID) && len(voters) == 0:
		return refuse(ErrInUse, thing, "it is the only voter: all that the cluster has agreed on would be lost", "wait until another server has become a voter (`petal cluster status`), or add one")
	}
	var disks []string
	for _, d := range n.Disks() {
		if slices.Contains(n.gmaps[n.families[d.Family].GMap].Ring, v.ID) {
			disks = append(disks, d.Name)
		}
	}
	if len(disks) == 0 {
		return nil
	}
	last := n.onlyOn(v.ID)
	why := fmt.Sprintf("it holds copies of disks %s", someOf(disks))
	if len(last) > 0 {
		why = fmt.Sprintf("it has the last copy of %d of its %d links: data of %s would be lost", len(last), len(n.LinksOf(v.ID)), n.disksText(last))
	}
	return refuse(ErrInUse, thing, why, fmt.Sprintf("if it is to go for good: stop it, and %v later new disks are made without it; copy these disks to such, delete them, then remove it", n.goneAfter()))
}

// onlyOn are the links of which only this server has everything.
func (n *State) onlyOn(id placement.Server) (links []placement.LinkID) {
	for _, l := range n.LinksOf(id) {
		m, _ := n.MemberOf(l, id)
		if n.Link(l).InSync == (placement.Members(0)).With(m) {
			links = append(links, l)
		}
	}
	return links
}

// DisksOnlyOn names the disks of which a part is on no other server, or on none that
// has all of it: what is lost with the bricks of this one. It is "no disk" if there
// are none.
func (n *State) DisksOnlyOn(id placement.Server) string { return n.disksText(n.onlyOn(id)) }

func (n *State) disksText(links []placement.LinkID) string {
	if names := n.disksOn(links); len(names) > 0 {
		return "disks " + someOf(names)
	}
	return "no disk"
}

// disksOn names the disks that have a part on one of the links.
func (n *State) disksOn(links []placement.LinkID) (names []string) {
	for _, d := range n.Disks() {
		gmap := n.families[d.Family].GMap
		if slices.ContainsFunc(links, func(l placement.LinkID) bool { return l.GMap == gmap }) {
			names = append(names, d.Name)
		}
	}
	return names
}

func linkNames(links []placement.LinkID) (names []string) {
	for _, l := range links {
		names = append(names, l.String())
	}
	return names
}

// someOf lists names, not too many.
func someOf(names []string) string {
	const most = 8
	if len(names) > most {
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// forget drops leaving servers that raft has let go of.
func (n *State) forget() {
	for _, v := range n.Servers() {
		if v.Leaving && !n.conf.Has(v.ID) {
			delete(n.servers, v.ID)
			delete(n.sessions, v.ID)
			n.event("member", v.ID, "server %s is no longer a member", v.Name)
			for _, f := range n.Families() {
				if f.Dropped {
					n.dropFreed(f) // it may have been the last one to wait for
				}
			}
		}
	}
}

func (n *State) updateServer(c *metapb.UpdateServer) error {
	srv, err := n.serverForChange(c.Server)
	if err != nil {
		return err
	}
	if len(c.Addresses) > 0 {
		srv.Addresses = slices.Clone(c.Addresses)
	}
	if len(c.Portals) > 0 {
		srv.Portals = slices.Clone(c.Portals)
	}
	if c.Site != nil {
		srv.Site = *c.Site
	}
	if err := checkServer(srv.Name, srv.Site, srv.Addresses, srv.Portals); err != nil {
		return err
	}
	if err := n.addressesFree(srv, c.Addresses); err != nil {
		return err
	}
	n.servers[srv.ID] = srv
	return nil
}

// serverForChange returns a copy of a server.
func (n *State) serverForChange(id uint32) (*Server, error) {
	old := n.servers[placement.Server(id)]
	if old == nil {
		return nil, refuse(ErrNotFound, serverThing(placement.Server(id)), "it is no member of the cluster", "see `petal node list`")
	}
	srv := *old
	return &srv, nil
}

func (n *State) createToken(c *metapb.CreateToken) error {
	for k, t := range n.tokens {
		if n.now >= t.Expires.UnixMilli() {
			delete(n.tokens, k)
		}
	}
	switch {
	case len(c.Hash) != 32:
		return refuse(ErrInvalid, "join token", fmt.Sprintf("hash of %d bytes", len(c.Hash)), "")
	case c.ExpiresMs <= n.now:
		return refuse(ErrInvalid, "join token", "it would have expired already", "give it a longer life")
	case c.Uses == 0 || c.Uses > maxTokenUses:
		return refuse(ErrInvalid, "join token", fmt.Sprintf("for %d uses", c.Uses), fmt.Sprintf("from 1 to %d", maxTokenUses))
	case len(n.tokens) >= maxTokens:
		return refuse(ErrInUse, "join tokens", fmt.Sprintf("there are %d", len(n.tokens)), "drop one, or wait until one expires")
	}
	if _, had := n.tokens[string(c.Hash)]; had {
		return refuse(ErrExists, "join token", "", "")
	}
	t := Token{Created: unixMs(n.now), Expires: unixMs(c.ExpiresMs), UsesLeft: c.Uses}
	copy(t.Hash[:], c.Hash)
	n.tokens[string(c.Hash)] = t
	return nil
}

func (n *State) deleteToken(c *metapb.DeleteToken) error {
	if _, had := n.tokens[string(c.Hash)]; !had {
		return refuse(ErrNotFound, "join token", "", "")
	}
	delete(n.tokens, string(c.Hash))
	return nil
}

// setCA keeps the cluster's authority. It is set once: certificates of another
// one would cut off every server.
func (n *State) setCA(c *metapb.SetCA) error {
	switch {
	case len(n.caCert) > 0 && !bytes.Equal(n.caCert, c.Certificate):
		return refuse(ErrExists, "certificate authority", "the cluster has one", "")
	case len(c.Certificate) == 0 || len(c.Certificate) > maxCertificate || len(c.SealedKey) > maxCertificate:
		return refuse(ErrInvalid, "certificate authority", fmt.Sprintf("certificate of %d bytes, key of %d", len(c.Certificate), len(c.SealedKey)), "")
	}
	n.caCert, n.caKey = bytes.Clone(c.Certificate), bytes.Clone(c.SealedKey)
	return nil
}

func (n *State) note(c *metapb.Note) error {
	if len(c.Kind) > maxEventKind || c.Kind == "" || c.Text == "" {
		return refuse(ErrInvalid, "event", "without a kind or a text", "")
	}
	n.eventOnce(c.Kind, placement.Server(c.Server), c.Text)
	return nil
}
