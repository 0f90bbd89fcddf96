package load

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"petal/target/initiator"
)

var errShortRead = errors.New("load: READ ended with GOOD and too little data")

// subject is one disk under load.
type subject struct {
	config      *Config
	url         initiator.URL
	portals     []string // besides the URL's
	pid         int
	lun         uint64
	blockLength uint64 // bytes
	first, size uint64 // the region, in bytes
	physical    int    // bytes
	identity    [16]byte
	lanes       []*lane
	verifier    *verifier

	mu         sync.Mutex
	info       Disk
	down       atomic.Int32 // sessions without a connection
	reconnects atomic.Int32
}

// open logs in once, looks at the disk, and settles the region.
func open(ctx context.Context, c *Config, index int) (*subject, error) {
	u, err := initiator.ParseURL(c.URLs[index])
	if err != nil {
		return nil, err
	}
	s := &subject{config: c, url: u, lun: initiator.WireLUN(u.LUN), portals: slices.Clone(c.Options.Portals)}
	if index < len(c.Portals) {
		s.portals = append(s.portals, c.Portals[index]...)
	}
	if index < len(c.PIDs) {
		s.pid = c.PIDs[index]
	}
	if err := s.grow(ctx, 1); err != nil {
		return nil, err
	}
	d, err := initiator.OpenDisk(ctx, s.lanes[0].session)
	if err != nil {
		return nil, err
	}
	if s.info.WriteCache, err = d.WriteCache(ctx); err != nil {
		return nil, err
	}
	inquiry := make([]byte, 96)
	n, err := d.Command(ctx, initiator.Inquiry(uint8(len(inquiry))), nil, inquiry)
	if err != nil {
		return nil, err
	}
	s.info.URL, s.info.Product = u.String(), strings.Join(strings.Fields(string(inquiry[min(n, 8):min(n, 36)])), " ")
	if s.identity, err = identify(ctx, d, inquiry[min(n, 8):min(n, 32)]); err != nil {
		return nil, err
	}
	s.info.BlockSize, s.info.Bytes = d.Capacity.BlockLength, d.Capacity.Blocks*uint64(d.Capacity.BlockLength)
	s.blockLength = uint64(d.Capacity.BlockLength)
	s.physical = int(d.Capacity.BlockLength) << min(d.Capacity.PhysicalExp, 8)
	return s, s.settle()
}

// identify makes a number of what a disk says of itself: vendor and product, and
// the unit serial number (page 80h). A disk without one has the number zero.
func identify(ctx context.Context, d *initiator.Disk, product []byte) (id [16]byte, err error) {
	const serialPage = 0x80
	page := make([]byte, 255)
	n, err := d.Command(ctx, initiator.InquiryVPD(serialPage, uint8(len(page))), nil, page)
	if _, refused := errors.AsType[*initiator.StatusError](err); refused || err == nil && n <= 4 {
		return id, nil
	}
	sum := sha256.Sum256(append(slices.Clone(product), page[:n]...))
	return [16]byte(sum[:16]), err
}

// maxVerified is the greatest region that is verified if no size is given.
const maxVerified = 16 << 30

// settle works out the region.
func (s *subject) settle() error {
	c := s.config
	align := uint64(s.blockLength)
	for _, j := range c.Jobs {
		if uint64(j.BlockSize)%s.blockLength != 0 {
			return impossible("job %s: block size %d is no multiple of the %d of %s", j.Name, j.BlockSize, s.blockLength, s.url)
		}
		align = max(align, uint64(j.BlockSize))
	}
	s.first, s.size = uint64(c.Offset), uint64(c.Size)
	if s.first%s.blockLength != 0 || s.first >= s.info.Bytes {
		return impossible("offset %d is no block of %s, which has %d bytes", s.first, s.url, s.info.Bytes)
	}
	if s.size == 0 {
		s.size = s.info.Bytes - s.first
		if c.Verify {
			s.size = min(s.size, maxVerified)
		}
		s.size -= s.size % align
	}
	if s.size < align || s.size%align != 0 || s.size > s.info.Bytes-s.first {
		return impossible("region of %d bytes at %d does not fit %s, which has %d bytes, or is no multiple of %d", s.size, s.first, s.url, s.info.Bytes, align)
	}
	return nil
}

// grow makes sure that there are n sessions.
func (s *subject) grow(ctx context.Context, n int) error {
	for len(s.lanes) < n {
		l := &lane{subject: s}
		seed := s.config.Seed + uint64(len(s.lanes))
		l.rng = rand.New(rand.NewPCG(seed, seed^0x9E3779B97F4A7C15))
		o := s.config.Options
		o.Reconnect, o.OnEvent = s.config.Reconnect, s.onEvent
		u := s.url
		u.Host, o.Portals = turned(append([]string{u.Host}, s.portals...), len(s.lanes))
		session, err := initiator.Dial(ctx, u, o)
		if err != nil {
			return fmt.Errorf("%s: %w", s.url, err)
		}
		l.session = session
		s.lanes = append(s.lanes, l)
	}
	return nil
}

// turned is a list of portals as session n is to try them: the sessions begin
// with different ones.
func turned(all []string, n int) (first string, others []string) {
	n %= len(all)
	return all[n], append(slices.Clone(all[n+1:]), all[:n]...)
}

func (s *subject) onEvent(e initiator.Event) {
	if e.Lost == nil {
		s.down.Add(-1)
		s.reconnects.Add(1)
		return
	}
	s.down.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.verifier != nil {
		s.verifier.model.connectionLost()
	}
}

// verify puts a verifier in; no phase is under way.
func (s *subject) verify(v *verifier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verifier = v
}

// fail notes an error.
func (s *subject) fail(sl *slot, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info.ErrorCount++
	if len(s.info.Errors) < maxErrors {
		s.info.Errors = append(s.info.Errors, IOError{
			Time: time.Now(), Command: operationNames[sl.op], LBA: s.lba(sl),
			Blocks: uint32(uint64(sl.length) / s.blockLength), Error: err.Error(),
		})
	}
}

// lba is where a slot's operation begins on the disk.
func (s *subject) lba(sl *slot) uint64 { return (s.first + sl.offset) / s.blockLength }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// drainTime is how long commands may take at a phase's end, besides the time
// for reconnections.
const drainTime = 60 * time.Second

// begin starts a phase on the first sessions lanes.
func (s *subject) begin(ctx context.Context, p plan, sessions, depth, blockSize int) (*phase, error) {
	if err := s.grow(ctx, sessions); err != nil {
		return nil, err
	}
	ph := &phase{plan: p, failed: make(chan struct{})}
	for i, l := range s.lanes[:sessions] {
		if err := l.start(ph, i, sessions, depth, blockSize); err != nil {
			return nil, err
		}
	}
	return ph, nil
}

// cancelGrace is how long commands may take to end after ctx has.
const cancelGrace = 5 * time.Second

// drain waits until all operations of a phase have ended. Those that do not
// end are ended by closing their sessions: after limit, or soon after ctx's end,
// and then at once if they wait for a connection.
func (s *subject) drain(ctx context.Context, ph *phase, limit time.Duration) error {
	done := make(chan struct{})
	go func() {
		ph.active.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	canceled := ctx.Done()
	for {
		select {
		case <-done:
			return ph.failure
		case <-canceled:
			if canceled = nil; s.down.Load() > 0 {
				limit = 0
			} else {
				limit = cancelGrace
			}
			timer.Reset(limit)
		case <-timer.C:
			ph.fail(fmt.Errorf("load: %s: commands did not end within %v", s.url, limit))
			s.close()
			<-done
			return ph.failure
		}
	}
}

// close ends all sessions and waits for that.
func (s *subject) close() {
	for _, l := range s.lanes {
		l.session.Close()
	}
	for _, l := range s.lanes {
		<-l.session.Ended()
	}
}

// sweep runs a pass over the region and waits for its end.
func (s *subject) sweep(ctx context.Context, op operation, show func(done string)) error {
	const depth, step = 8, 256 << 10
	p := &pass{op: op, size: s.size, step: step}
	ph, err := s.begin(ctx, p, 1, depth, step)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	done := make(chan error, 1)
	// A pass is as long as the disk makes it; it ends with the region, with
	// ctx, or with the session.
	go func() { done <- s.drain(ctx, ph, 24*time.Hour) }()
	for {
		select {
		case err := <-done:
			return errors.Join(err, ctx.Err())
		case <-ctx.Done():
			ph.stop.Store(true)
			return errors.Join(<-done, ctx.Err())
		case <-ticker.C:
			show(fmt.Sprintf("%3d %%", min(p.position.Load(), p.size)*100/p.size))
		}
	}
}

// sync makes durable what is in a volatile cache, so that nothing of it is in
// doubt afterwards.
func (s *subject) sync(ctx context.Context) error {
	if !s.info.WriteCache {
		return nil
	}
	ph, err := s.begin(ctx, &once{op: opSync}, 1, 1, SectorBytes)
	if err != nil {
		return err
	}
	return s.drain(ctx, ph, drainTime+s.config.Reconnect)
}

// report completes and returns what the Result says of the disk.
func (s *subject) report() Disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.info
	d.Reconnects = int(s.reconnects.Load())
	for _, l := range s.lanes {
		l.mu.Lock()
		d.Retries += l.retries
		if l.stall.Milliseconds > d.LongestStall {
			d.LongestStall, d.Stall = l.stall.Milliseconds, &l.stall
		}
		l.mu.Unlock()
	}
	return d
}
