package peer

import (
	"context"
	"errors"
	"fmt"
	"net"

	"petal/cluster/wire"
	"petal/placement"
)

// A server dials those with lower numbers and is dialled by those with higher
// ones. So one whom nobody dials can't tell why: it may have been taken out of
// the cluster, another process may run as this server, or it may have moved to an
// address that the others don't know. inquireAlways asks: it says Hello, is never
// let in, and learns from the refusal; and who refuses learns from the Hello
// where to dial.
func (b *bundle) inquireAlways() {
	every := b.opt().inquiry()
	waited := false // for as long as that, in vain
	for attempt := 0; b.pause(every); {
		b.mu.Lock()
		alone, stopped := b.state == idle, b.stopped
		b.mu.Unlock()
		addrs := b.peer.all.addrs(b.peer.id)
		switch {
		case stopped:
			return
		case !alone || len(addrs) == 0:
			waited = false
		case !waited:
			waited = true
		default:
			b.inquire(addrs[attempt%len(addrs)])
			attempt++
		}
	}
}

// inquire asks at one address.
func (b *bundle) inquire(addr string) {
	ctx, cancel := context.WithTimeout(b.peer.all.ctx, b.opt().handshake())
	defer cancel()
	raw, err := b.opt().Dial(ctx, addr)
	if err != nil {
		return
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	_, err = b.greet(ctx, raw, session{number: b.peer.all.sessions.Add(1)}, wire.ClassRaft)
	var why refusal
	if !errors.As(err, &why) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == idle {
		b.reason = why
	}
}

// turnedAway says who was refused a connection.
type turnedAway struct {
	server placement.Server
	why    refusal
}

func (t turnedAway) Error() string { return fmt.Sprintf("server %d: %v", t.server, t.why) }

// tellRefused tells of one who was not let in, where that is no mere accident: who
// knocks has a certificate of this cluster, or lies in a cluster without any. What
// others show is not worth a word: anybody can make it.
func (p *Peers) tellRefused(from net.Conn, err error) {
	if p.opt.Refused == nil {
		return
	}
	host, _, _ := net.SplitHostPort(from.RemoteAddr().String())
	var t turnedAway
	switch errors.As(err, &t); {
	case t.why == otherCluster:
		p.opt.Refused(fmt.Sprintf("somebody at %s was not let in, who belongs to another cluster: correct the addresses there", host))
	case t.why == unknownServer && p.opt.Gone != nil && !p.opt.Gone(t.server): // it has joined, and the state is on its way here
	case t.why == unknownServer:
		p.opt.Refused(fmt.Sprintf("server %d at %s was not let in: it is no member of this cluster any more; stop it, or let it join anew with an empty directory", t.server, host))
	case t.why == oldIncarnation:
		p.opt.Refused(fmt.Sprintf("a process that runs as server %d at %s was not let in: another one has been started as that server since; stop one of the two, and delete its copy", t.server, host))
	case t.why == twin:
		p.opt.Refused(fmt.Sprintf("a second process at %s says that it is server %d, and was not let in: stop one of the two, and delete its copy", host, t.server))
	case t.why == otherVersion:
		p.opt.Refused(fmt.Sprintf("server %d at %s was not let in: its release speaks no version of the protocol that this one knows; upgrade one release at a time", t.server, host))
	}
}
