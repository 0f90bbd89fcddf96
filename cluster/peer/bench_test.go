package peer

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"petal/cluster/wire"
	"petal/placement"
)

// echo answers each Write with a Reply, and counts Replies.
type echo struct {
	peers *Peers
	reply wire.Message
	up    chan struct{}
	slots chan struct{}
}

func (e *echo) Receive(from placement.Server, _ uint64, m *wire.Message) {
	switch m.Kind {
	case wire.Write:
		if !m.Verify() {
			panic("damaged")
		}
		e.reply = wire.Message{Kind: wire.Reply, Op: m.Op}
		e.peers.Send(from, &e.reply)
	case wire.Reply:
		e.slots <- struct{}{}
	}
}
func (e *echo) Up(placement.Server, uint64) { close(e.up) }
func (e *echo) Down(placement.Server)       {}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkWrite is a Write and its Reply between two servers in this process,
// over loopback: cpu-ns/op is the processor time of both ends together, kernel
// included, with the checksum verified.
func BenchmarkWrite(b *testing.B) {
	for _, plain := range []bool{true, false} {
		for _, size := range []int{4 << 10, 64 << 10} {
			for _, depth := range []int{1, 32} {
				name := map[bool]string{true: "plain", false: "tls"}[plain]
				b.Run(fmt.Sprintf("%s/%dK/x%d", name, size>>10, depth), func(b *testing.B) { benchmarkWrite(b, plain, size, depth) })
			}
		}
	}
}

func benchmarkWrite(b *testing.B, plain bool, size, depth int) {
	f := newFleet(b, plain)
	e1, e2 := &echo{up: make(chan struct{}), slots: make(chan struct{}, depth)}, &echo{up: make(chan struct{})}
	e1.peers, e2.peers = f.start(f.options(1, 1, e1)), f.start(f.options(2, 1, e2))
	e1.peers.SetPeers(f.members)
	e2.peers.SetPeers(f.members)
	<-e1.up
	<-e2.up
	m := f.writeOf(1, 7, size)
	defer m.Data.Release()
	for range depth {
		e1.slots <- struct{}{}
	}
	b.SetBytes(int64(size))
	before := cpu()
	var once sync.Once
	for b.Loop() {
		once.Do(b.ResetTimer)
		<-e1.slots
		if !e1.peers.Send(2, m) {
			b.Fatal("not sent")
		}
	}
	for range depth {
		<-e1.slots
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}
