package explore

import (
	"petal/cluster/link"
	"petal/placement"
)

// codec writes or reads a world, byte by byte: one description for both ways.
type codec struct {
	b    []byte
	read bool
}

func (c *codec) u8(ps ...*uint8) {
	for _, p := range ps {
		if c.read {
			*p = c.b[0]
			c.b = c.b[1:]
		} else {
			c.b = append(c.b, *p)
		}
	}
}

func (c *codec) set(ps ...*placement.Members) {
	for _, p := range ps {
		v := uint8(*p)
		c.u8(&v)
		*p = placement.Members(v)
	}
}

// bits packs up to eight flags.
func (c *codec) bits(ps ...*bool) {
	var v uint8
	for i, p := range ps {
		if *p {
			v |= 1 << i
		}
	}
	c.u8(&v)
	for i, p := range ps {
		*p = v>>i&1 != 0
	}
}

func (c *codec) stamp(ps ...*stamp) {
	for _, p := range ps {
		c.u8(&p.ver, &p.seq)
	}
}

func (c *codec) world(w *world, k *Case) {
	c.u8(&w.nlog, &w.rejoin.member, &w.rejoin.ver, &w.bar, &w.rotten)
	for i := range w.log[:w.nlog] {
		e := &w.log[i]
		c.u8(&e.kind, &e.ver, &e.head)
		c.set(&e.insync)
	}
	for i := range k.Writes {
		c.u8(&w.wst[i])
	}
	for i := range k.Blocks {
		for s := 0; s < 32; s += 8 {
			v := uint8(w.mon[i] >> s)
			c.u8(&v)
			w.mon[i] = w.mon[i]&^(0xff<<s) | uint32(v)<<s
		}
	}
	u := &w.used
	c.u8(&u.Reads, &u.Crashes, &u.Cuts, &u.Rots, &u.Fences, &u.Aborts, &u.Fetches, &u.Lapses)
	for i := range k.Members {
		c.server(&w.srv[i], k)
		for j := range k.Members {
			c.queue(&w.q[i][j])
		}
	}
	for i := range w.net {
		v := uint8(w.net[i])
		c.u8(&v)
		w.net[i] = netState(v)
	}
}

func (c *codec) server(s *server, k *Case) {
	c.bits(&s.up, &s.leased, &s.raft, &s.vv, &s.fetch.on, &s.cuts[0].on, &s.cuts[1].on)
	c.u8(&s.applied, &s.fenced)
	for i := range s.cuts {
		if g := &s.cuts[i]; g.on {
			c.u8(&g.to, &g.ver, &g.session, &g.marks)
			c.stamp(&g.stamp, &g.common)
		}
	}
	if s.fetch.on {
		c.u8(&s.fetch.block, &s.fetch.val, &s.fetch.ver)
	}
	d := &s.disk
	if k.Members == 2 {
		c.u8(&d.both, &s.trust.both, &s.trust.session)
	}
	c.u8(&d.nrecs, &d.ntodo, &d.missing, &d.missed)
	for i := range d.recs[:d.nrecs] {
		r := &d.recs[i]
		c.stamp(&r.stamp)
		c.u8(&r.write, &r.val, &r.bucket, &r.block)
		c.set(&r.excluded)
		c.bits(&r.durable, &r.committed, &r.after)
	}
	for i := range d.todo[:d.ntodo] {
		t := &d.todo[i]
		c.u8((*uint8)(&t.kind), &t.bucket, &t.blocks)
		c.stamp(&t.stamp)
		c.set(&t.members)
	}
	for i := range k.Blocks {
		c.u8(&d.home[i])
		c.stamp(&d.last[i], &d.gone[i], &d.floor[i])
		c.past(&d.past[i])
	}
	for i := range k.Writes {
		x := &d.index[i]
		c.bits(&x.on)
		if x.on {
			c.stamp(&x.stamp)
			c.set(&x.excluded)
		}
	}
	for i := range k.Members {
		c.u8(&d.marks[i])
	}
}

func (c *codec) past(p *past) {
	var vers [2]uint8
	for v, seq := range p {
		if seq > 0 {
			vers[v/8] |= 1 << (v % 8)
		}
	}
	c.u8(&vers[0], &vers[1])
	for v := range p {
		if vers[v/8]>>(v%8)&1 != 0 {
			c.u8(&p[v])
		}
	}
}

func (c *codec) queue(q *queue) {
	c.u8(&q.n)
	for i := range q.m[:q.n] {
		p := &q.m[i]
		c.u8((*uint8)(&p.kind), &p.ver, &p.bucket, &p.session, &p.nlist, &p.write, &p.val, &p.marks)
		c.stamp(&p.stamp, &p.prev, &p.committed)
		c.set(&p.excluded)
		c.bits(&p.first, &p.last)
		if p.kind == link.MsgCut {
			c.u8(&p.others[0], &p.others[1], &p.others[2])
			c.past(&p.past)
		}
		for j := range p.list[:p.nlist] {
			c.u8(&p.list[j].bucket)
			c.stamp(&p.list[j].stamp)
		}
	}
}
