package load

import (
	"fmt"
	"io"
	"time"

	"petal/target/initiator"
)

// Job is one kind of load.
type Job struct {
	Name string `json:"name"` // made of the rest if empty
	// BlockSize is the length of every read and write in bytes, a multiple of
	// 512 and of the disk's block length, at most 16 MiB. Default 4096.
	BlockSize int `json:"block_size"`
	// Depth is how many commands each session keeps under way, 1 to 1024.
	// Default 1.
	Depth int `json:"depth"`
	// Sessions is how many sessions share the job, 1 to 1024. Default 1.
	Sessions int `json:"sessions"`
	// ReadPercent of the commands are reads, the rest writes; 0 to 100.
	ReadPercent int `json:"read_percent"`
	// UnmapPercent of the rest are UNMAPs, 0 to 100. Wants a disk that unmaps.
	UnmapPercent int `json:"unmap_percent,omitempty"`
	// Sequential: each session walks through its share of the region. Else
	// every command goes to a random multiple of BlockSize.
	Sequential bool `json:"sequential"`
}

// Bounds of a Job.
const (
	MaxBlockSize = 16 << 20
	MaxDepth     = 1024
	MaxSessions  = 1024
)

// Config is what Run is to do.
type Config struct {
	// URLs are the disks (initiator.ParseURL's syntax), one or several. All
	// jobs are run on each. Ratios are of the first to each of the others.
	URLs []string
	Jobs []Job
	// Rounds is how often the whole is repeated, 1 to 1000. Default 1.
	Rounds int
	// Time is how long a job is measured on one disk in one round (default
	// 10 s), and Warmup how long it runs before that, unmeasured (default 0).
	Time, Warmup time.Duration
	// Seed decides offsets, mix and content; the same seed sends the same
	// commands. 0: a random one, told in the Result.
	Seed uint64
	// Offset and Size bound the region that is used, in bytes, multiples of
	// the greatest block size. Size 0: to the end of the disk, in whole blocks.
	Offset, Size int64
	// Fill writes the whole region once, in order, before the first job, so
	// that reads find data and writes allocated space.
	Fill bool
	// Prime reads the whole region once, in order, before the first job (and
	// after Fill), so that what a server caches is cached on all disks.
	Prime bool

	// Verify stamps every sector written, judges all that is read, and reads
	// the whole region at the end. It wants a single URL.
	Verify bool
	// VerifyState is a file. If it is there, the run goes on from it: the
	// region is read and judged first, and what that run had acknowledged must
	// still be there. At the end, whatever it is, the state is written to it.
	VerifyState string
	// CheckOnly judges the region against VerifyState and runs no job.
	CheckOnly bool
	// ExpectZeros: what was never written must read as zeros. Only for a disk
	// that is new.
	ExpectZeros bool
	// AtomicBytes is the size and alignment below which a write must be there
	// wholly or not at all, even after a crash: a power of two from 512 to
	// 64 KiB. Default: the disk's physical block, at most 4096.
	AtomicBytes int
	// SyncEvery is after how many writes of a session a disk with a write cache
	// gets a SYNCHRONIZE CACHE while it is verified. Default 256.
	SyncEvery int

	// Options are for every session. Run sets Reconnect and OnEvent. With
	// Options.Portals the sessions share out all portals between them.
	Options initiator.Options
	// Portals are, for each URL, further portals of that disk, besides those of
	// Options.
	Portals [][]string
	// Reconnect is for how long after the loss of a connection a session tries
	// to get a new one; 0: a lost connection ends the run.
	Reconnect time.Duration
	// PIDs are the servers' process ids, one for each URL, 0 for none: their
	// CPU time, with that of all their descendants, is measured.
	PIDs []int
	// Progress gets one line that is written over again, several times a
	// second, while the run lasts. nil: none.
	Progress io.Writer
}

// ConfigError says that a Config asks for what cannot be.
type ConfigError struct{ error }

func (e ConfigError) Unwrap() error { return e.error }

func impossible(format string, args ...any) error {
	return ConfigError{fmt.Errorf("load: "+format, args...)}
}

// withDefaults fills in what is not set and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if len(c.URLs) == 0 {
		return c, impossible("no URL given")
	}
	if (c.Verify || c.CheckOnly) && len(c.URLs) != 1 {
		return c, impossible("verifying wants one URL, not %d: each disk has a state of its own", len(c.URLs))
	}
	if c.CheckOnly && c.VerifyState == "" {
		return c, impossible("a check wants the state file of the run that it is to check")
	}
	if c.VerifyState != "" {
		c.Verify = true
	}
	c.Rounds = or(c.Rounds, 1)
	c.Time = or(c.Time, 10*time.Second)
	c.SyncEvery = or(c.SyncEvery, 256)
	if c.Rounds < 0 || c.Rounds > 1000 || c.Time < 0 || c.Warmup < 0 || c.Offset < 0 || c.Size < 0 || c.SyncEvery < 0 {
		return c, impossible("rounds, times, offset and size must not be negative, and rounds at most 1000")
	}
	if len(c.PIDs) > len(c.URLs) {
		return c, impossible("%d process ids for %d URLs", len(c.PIDs), len(c.URLs))
	}
	if a := c.AtomicBytes; a != 0 && (a < SectorBytes || a > maxAtomicSectors*SectorBytes || a&(a-1) != 0) {
		return c, impossible("%d is no power of two from %d to %d", a, SectorBytes, maxAtomicSectors*SectorBytes)
	}
	if len(c.Portals) > len(c.URLs) {
		return c, impossible("portals for %d URLs of %d", len(c.Portals), len(c.URLs))
	}
	jobs := make([]Job, len(c.Jobs))
	for i, j := range c.Jobs {
		var err error
		if jobs[i], err = j.withDefaults(); err != nil {
			return c, err
		}
	}
	if c.Jobs = jobs; c.CheckOnly {
		c.Jobs = nil
	} else if len(jobs) == 0 {
		return c, impossible("no job given")
	}
	return c, nil
}

// or is v, or what stands for its zero value.
func or[T comparable](v, instead T) T {
	var zero T
	if v == zero {
		return instead
	}
	return v
}

func (j Job) withDefaults() (Job, error) {
	j.BlockSize, j.Depth, j.Sessions = or(j.BlockSize, 4096), or(j.Depth, 1), or(j.Sessions, 1)
	j.Name = or(j.Name, j.Describe())
	switch {
	case j.BlockSize < 0 || j.BlockSize%SectorBytes != 0 || j.BlockSize > MaxBlockSize:
		return j, impossible("job %s: block size %d is no multiple of %d up to %d", j.Name, j.BlockSize, SectorBytes, MaxBlockSize)
	case j.Depth < 0 || j.Depth > MaxDepth:
		return j, impossible("job %s: depth %d is not from 1 to %d", j.Name, j.Depth, MaxDepth)
	case j.Sessions < 0 || j.Sessions > MaxSessions:
		return j, impossible("job %s: %d sessions are not from 1 to %d", j.Name, j.Sessions, MaxSessions)
	case j.ReadPercent < 0 || j.ReadPercent > 100 || j.UnmapPercent < 0 || j.UnmapPercent > 100:
		return j, impossible("job %s: percentages are from 0 to 100", j.Name)
	}
	return j, nil
}

// Describe names a job by what it does: "4k random read, depth 32".
func (j Job) Describe() string {
	size := fmt.Sprint(j.BlockSize)
	switch {
	case j.BlockSize%(1<<20) == 0:
		size = fmt.Sprintf("%dM", j.BlockSize>>20)
	case j.BlockSize%(1<<10) == 0:
		size = fmt.Sprintf("%dk", j.BlockSize>>10)
	}
	pattern, mix := "random", "write"
	if j.Sequential {
		pattern = "sequential"
	}
	switch j.ReadPercent {
	case 0:
	case 100:
		mix = "read"
	default:
		mix = fmt.Sprintf("%d/%d mix", j.ReadPercent, 100-j.ReadPercent)
	}
	s := fmt.Sprintf("%s %s %s, depth %d", size, pattern, mix, j.Depth)
	if j.Sessions > 1 {
		s += fmt.Sprintf(" x %d sessions", j.Sessions)
	}
	return s
}

// StandardJobs are the jobs of `make bench`: small random reads and writes one
// by one and at depth, a mix, middle-sized and large transfers.
func StandardJobs() []Job {
	return []Job{
		{BlockSize: 4 << 10, Depth: 1, ReadPercent: 100},
		{BlockSize: 4 << 10, Depth: 1},
		{BlockSize: 4 << 10, Depth: 32, ReadPercent: 100},
		{BlockSize: 4 << 10, Depth: 32},
		{BlockSize: 4 << 10, Depth: 32, ReadPercent: 70},
		{BlockSize: 64 << 10, Depth: 8, ReadPercent: 100},
		{BlockSize: 64 << 10, Depth: 8},
		{BlockSize: 1 << 20, Depth: 4, ReadPercent: 100, Sequential: true},
		{BlockSize: 1 << 20, Depth: 4, Sequential: true},
	}
}
