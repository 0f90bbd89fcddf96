package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// progressEvery is how often the progress line is renewed.
const progressEvery = 250 * time.Millisecond

// Run does what c says. The error is for what kept it from being done: a
// wrong Config, no login, a session that ended. I/O errors and findings of the
// verifier are in the Result, which is valid, as far as things got, with an
// error too. On ctx's end commands under way are waited for.
func Run(ctx context.Context, c Config) (Result, error) {
	c, err := c.withDefaults()
	if err != nil {
		return Result{}, err
	}
	for c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	r := &runner{config: &c, result: Result{Began: time.Now(), Seed: c.Seed}}
	defer r.clear()
	for i := range c.URLs {
		s, err := open(ctx, &c, i)
		if s != nil {
			defer s.close()
		}
		if err != nil {
			return r.result, err
		}
		r.subjects = append(r.subjects, s)
	}
	if c.Verify {
		err = r.verified(ctx)
	} else {
		err = r.measured(ctx)
	}
	for _, s := range r.subjects {
		r.result.Disks = append(r.result.Disks, s.report())
	}
	return r.result, err
}

// runner is one Run.
type runner struct {
	config   *Config
	subjects []*subject
	result   Result
}

// measured runs all there is to run without verifying.
func (r *runner) measured(ctx context.Context) error {
	for _, s := range r.subjects {
		if err := r.ready(ctx, s); err != nil {
			return err
		}
	}
	return r.rounds(ctx)
}

// ready fills and primes a disk.
func (r *runner) ready(ctx context.Context, s *subject) error {
	if r.config.Fill {
		if err := r.sweep(ctx, s, opWrite, "filling"); err != nil {
			return err
		}
	}
	if r.config.Prime {
		return r.sweep(ctx, s, opRead, "priming")
	}
	return nil
}

// sweep runs an operation over the whole region.
func (r *runner) sweep(ctx context.Context, s *subject, op operation, what string) error {
	return s.sweep(ctx, op, func(done string) { r.show("%s: %s %s", s.url, what, done) })
}

// rounds runs every job on every disk, round by round.
func (r *runner) rounds(ctx context.Context) error {
	for _, j := range r.config.Jobs {
		r.result.Jobs = append(r.result.Jobs, JobResult{Job: j})
	}
	defer func() {
		for i := range r.result.Jobs {
			r.result.Jobs[i].sumUp()
		}
	}()
	for round := range r.config.Rounds {
		for i, job := range r.config.Jobs {
			row := make([]Measure, len(r.subjects))
			for k := range r.subjects {
				// Each disk is first in its turn: what one leaves behind (dirty
				// pages, a warm disk) then hits all of them.
				k = (k + round) % len(r.subjects)
				m, err := r.job(ctx, r.subjects[k], job, round)
				if err != nil {
					return err
				}
				row[k] = m
			}
			r.result.Jobs[i].Rounds = append(r.result.Jobs[i].Rounds, row)
		}
	}
	return nil
}

// sample is the state of counters at one moment.
type sample struct {
	at         time.Time
	ios, bytes uint64
	errors     uint64
	cpu        time.Duration
}

func (s *subject) sample() (sample, error) {
	v := sample{}
	var err error
	if s.pid != 0 {
		v.cpu, err = processTime(s.pid)
	}
	v.at = time.Now()
	for _, l := range s.lanes {
		v.ios += l.ios.Load()
		v.bytes += l.bytes.Load()
		v.errors += l.errors.Load()
	}
	return v, err
}

// job runs one job on one disk.
func (r *runner) job(ctx context.Context, s *subject, job Job, round int) (Measure, error) {
	var m Measure
	ph, err := s.begin(ctx, &mixed{job: job, size: s.size}, job.Sessions, job.Depth, job.BlockSize)
	if err != nil {
		return m, err
	}
	label := fmt.Sprintf("round %d/%d  %s  %s", round+1, r.config.Rounds, job.Name, s.url.Host)
	r.wait(ctx, ph, s, r.config.Warmup, label+" (warm-up)")
	from, err1 := s.sample()
	ph.measuring.Store(true)
	r.wait(ctx, ph, s, r.config.Time, label)
	ph.measuring.Store(false)
	to, err2 := s.sample()
	ph.stop.Store(true)
	if err := errors.Join(s.drain(ctx, ph, drainTime+r.config.Reconnect), err1, err2, ctx.Err()); err != nil {
		return m, err
	}
	m.Seconds = to.at.Sub(from.at).Seconds()
	m.IOs = to.ios - from.ios
	m.Errors = int(to.errors - from.errors)
	m.IOPS = float64(m.IOs) / m.Seconds
	m.MiBps = float64(to.bytes-from.bytes) / m.Seconds / (1 << 20)
	if m.IOs > 0 {
		m.CPUPerIO = float64(to.cpu-from.cpu) / float64(time.Microsecond) / float64(m.IOs)
	}
	for _, l := range s.lanes[:job.Sessions] {
		m.read.Merge(&l.read)
		m.write.Merge(&l.write)
	}
	m.Read, m.Write = m.read.Summary(), m.write.Summary()
	return m, nil
}

// wait lets a phase run for d, or until it or ctx ends.
func (r *runner) wait(ctx context.Context, ph *phase, s *subject, d time.Duration, label string) {
	if d == 0 {
		return
	}
	end := time.NewTimer(d)
	defer end.Stop()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	last, _ := s.sample()
	for {
		select {
		case <-end.C:
			return
		case <-ctx.Done():
			return
		case <-ph.failed:
			return
		case <-ticker.C:
			now, _ := s.sample()
			seconds := now.at.Sub(last.at).Seconds()
			state := ""
			if n := s.down.Load(); n > 0 {
				state = fmt.Sprintf("  %d sessions reconnecting", n)
			}
			r.show("%s: %.0f IOPS  %.1f MiB/s  %d errors%s", label, float64(now.ios-last.ios)/seconds,
				float64(now.bytes-last.bytes)/seconds/(1<<20), now.errors, state)
			last = now
		}
	}
}

// show renews the progress line.
func (r *runner) show(format string, args ...any) {
	if r.config.Progress != nil {
		fmt.Fprintf(r.config.Progress, "\r"+format+"\x1b[K", args...)
	}
}

// clear takes the progress line away.
func (r *runner) clear() {
	if r.config.Progress != nil {
		io.WriteString(r.config.Progress, "\r\x1b[K")
	}
}

// verified runs the jobs of a run that verifies, between reading over all
// before, if there is a state to go on from, and after.
func (r *runner) verified(ctx context.Context) (err error) {
	s := r.subjects[0]
	resumed, err := r.prepare(s)
	if err != nil {
		return err
	}
	v := s.verifier
	finalRead := false
	defer func() {
		v.model.settleAll()
		r.result.Verified = v.result(finalRead)
		if r.config.VerifyState != "" {
			err = errors.Join(err, saveState(r.config.VerifyState, &v.region, v.model))
		}
	}()
	if resumed {
		if err := r.sweep(ctx, s, opRead, "reading what an earlier run left"); err != nil {
			return err
		}
	} else if err := r.ready(ctx, s); err != nil {
		return err
	}
	if !r.config.CheckOnly {
		if err := r.rounds(ctx); err != nil {
			return err
		}
		if err := s.sync(ctx); err != nil {
			return err
		}
		v.final.Store(true)
		if err := r.sweep(ctx, s, opRead, "final read"); err != nil {
			return err
		}
	}
	finalRead = true
	return nil
}

// prepare makes the verifier, from the state file if there is one.
func (r *runner) prepare(s *subject) (resumed bool, err error) {
	v := &verifier{syncEvery: r.config.SyncEvery, counts: map[Kind]int{}}
	defer s.verify(v)
	if r.config.VerifyState != "" {
		reg, m, err := loadState(r.config.VerifyState)
		switch {
		case err == nil:
			v.region, v.model = *reg, m
			return true, r.fits(s, v)
		case r.config.CheckOnly || !errors.Is(err, os.ErrNotExist):
			return false, err
		}
	}
	unit := 4096
	for _, j := range r.config.Jobs {
		unit = gcd(unit, j.BlockSize)
	}
	unit = max(unit, int(s.blockLength))
	atomic := min(or(r.config.AtomicBytes, min(s.physical, 4096)), unit)
	v.region = region{
		disk: s.identity, run: rand.Uint64(), first: s.first / SectorBytes, zero: r.config.ExpectZeros,
		unitSectors: unit / SectorBytes, atomic: atomic / SectorBytes,
	}
	v.model = newModel(int(s.size/uint64(unit)), s.info.WriteCache)
	return false, nil
}

// fits checks that a state and this run are of the same region, and takes the
// region from the state if the run does not say one.
func (r *runner) fits(s *subject, v *verifier) error {
	unit := v.region.unitSectors * SectorBytes
	first, size := v.region.first*SectorBytes, uint64(len(v.model.units)*unit)
	if v.region.disk != s.identity && v.region.disk != [16]byte{} {
		return impossible("%s is of another disk than %s; each disk has a state file of its own", r.config.VerifyState, s.url)
	}
	v.region.disk = s.identity
	given := r.config.Size != 0 || r.config.Offset != 0
	if given && (first != s.first || size != s.size) || first+size > s.info.Bytes {
		return impossible("%s is of %d bytes at %d; give the same region, or another file", r.config.VerifyState, size, first)
	}
	for _, j := range r.config.Jobs {
		if j.BlockSize%unit != 0 || size%uint64(j.BlockSize) != 0 {
			return impossible("%s was written in units of %d bytes; block size %d does not fit", r.config.VerifyState, unit, j.BlockSize)
		}
	}
	s.first, s.size = first, size
	v.model.volatile = s.info.WriteCache
	return nil
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
