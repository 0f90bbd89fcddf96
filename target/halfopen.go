package target

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// halfOpen bounds the connections that have not logged in. When it is full, the
// oldest connection of the address that has the most makes room: whoever floods
// a portal pushes out himself, and a login that goes on at all is through long
// before its turn to be the oldest.
type halfOpen struct {
	mu      sync.Mutex
	limit   int
	count   int
	sources map[netip.Addr]*list.List // of net.Conn, oldest first
}

// ticket is a connection's place among the half-open.
type ticket struct {
	source  netip.Addr
	element *list.Element
}

// enter adds a connection, and closes another one if there are too many.
func (h *halfOpen) enter(c net.Conn) ticket {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sources == nil {
		h.sources = map[netip.Addr]*list.List{}
	}
	if h.count >= h.limit {
		h.evict()
	}
	t := ticket{source: addressOf(c.RemoteAddr())}
	l := h.sources[t.source]
	if l == nil {
		l = list.New()
		h.sources[t.source] = l
	}
	t.element = l.PushBack(c)
	h.count++
	return t
}

// leave takes a connection out, whether it was evicted or not.
func (h *halfOpen) leave(t ticket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(t)
}

// makeRoom closes one connection, for when descriptors have run out.
func (h *halfOpen) makeRoom() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.evict()
}

func (h *halfOpen) evict() {
	var worst ticket
	most := 0
	for source, l := range h.sources {
		if l.Len() > most {
			most, worst = l.Len(), ticket{source, l.Front()}
		}
	}
	if most == 0 {
		return
	}
	worst.element.Value.(net.Conn).Close()
	h.remove(worst)
}

// remove is idempotent: an element's list forgets it when it is removed.
func (h *halfOpen) remove(t ticket) {
	l := h.sources[t.source]
	if l == nil {
		return
	}
	before := l.Len()
	l.Remove(t.element)
	h.count -= before - l.Len()
	if l.Len() == 0 {
		delete(h.sources, t.source)
	}
}

// closeAll closes all half-open connections.
func (h *halfOpen) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.count > 0 {
		h.evict()
	}
}

// addressOf is the IP address of a peer; the zero address for others than TCP.
func addressOf(a net.Addr) netip.Addr { return addrPort(a).Addr().Unmap() }

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}
