package appliance

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"petal/target"
	"petal/target/scsi"
)

// maxInitiators bounds the label values that strangers can make: a target
// without access list lets any name in. Further ones are counted together.
const (
	maxInitiators  = 1024
	otherInitiator = "other"
)

// operation is a class of commands.
type operation int

const (
	opRead operation = iota
	opWrite
	opUnmap // UNMAP, WRITE SAME
	opSync
	opOther
	operations
)

var operationNames = [operations]string{"read", "write", "unmap", "sync", "other"}

// operationOf classes a command by its operation code.
func operationOf(opcode byte) operation {
	switch scsi.Opcode(opcode) {
	case scsi.OpRead6, scsi.OpRead10, scsi.OpRead12, scsi.OpRead16:
		return opRead
	case scsi.OpWrite6, scsi.OpWrite10, scsi.OpWrite12, scsi.OpWrite16, scsi.OpWriteAtomic16,
		scsi.OpWriteVerify10, scsi.OpWriteVerify12, scsi.OpWriteVerify16, scsi.OpCompareAndWrite:
		return opWrite
	case scsi.OpUnmap, scsi.OpWriteSame10, scsi.OpWriteSame16:
		return opUnmap
	case scsi.OpSyncCache10, scsi.OpSyncCache16:
		return opSync
	}
	return opOther
}

// metrics are what Prometheus sees of a node.
type metrics struct {
	a        *appliance
	registry *prometheus.Registry
	latency  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	errors   *prometheus.CounterVec

	mu         sync.Mutex
	initiators map[string]struct{} // label values so far
}

func newMetrics(a *appliance) *metrics {
	labels := []string{"disk", "initiator", "op"}
	m := &metrics{
		a: a, registry: prometheus.NewRegistry(), initiators: map[string]struct{}{},
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "petal_io_duration_seconds",
			Help: "Time from a command's arrival to its status, by disk, initiator and operation.", Buckets: prometheus.ExponentialBuckets(25e-6, 2, 20)}, labels),
		bytes:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "petal_io_bytes_total", Help: "Bytes transferred with initiators."}, labels),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "petal_io_errors_total", Help: "Commands that ended with another status than GOOD."}, labels),
	}
	m.registry.MustRegister(m.latency, m.bytes, m.errors, nodeCollector{a}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// label is the initiator's name, or otherInitiator when there are too many.
func (m *metrics) label(initiator string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.initiators[initiator]; !known && len(m.initiators) >= maxInitiators {
		return otherInitiator
	}
	m.initiators[initiator] = struct{}{}
	return initiator
}

// session returns the observer of one session.
func (m *metrics) session(targetName, initiator string) target.SessionObserver {
	return &sessionMetrics{m: m, target: targetName, initiator: m.label(initiator), luns: map[uint64]*lunMetrics{}}
}

// sessionMetrics keeps the resolved series of one session, so that counting a
// command looks nothing up by name and allocates nothing. It is used by one
// goroutine at a time.
type sessionMetrics struct {
	m                 *metrics
	target, initiator string
	names             *map[string]map[uint16]string // that luns was resolved with
	luns              map[uint64]*lunMetrics
}

type lunMetrics [operations]struct {
	latency       prometheus.Observer
	bytes, errors prometheus.Counter
}

// Command counts one command.
func (s *sessionMetrics) Command(lun uint64, opcode byte, in, out int, status byte, d time.Duration) {
	if names := s.m.a.exports.names.Load(); names != s.names {
		s.names = names
		clear(s.luns)
	}
	l := s.luns[lun]
	if l == nil {
		l = s.resolve(lun)
	}
	op := &l[operationOf(opcode)]
	op.latency.Observe(d.Seconds())
	op.bytes.Add(float64(in + out))
	if status != 0 {
		op.errors.Inc()
	}
}

// Closed is called when the session has ended. Its series stay: counters that
// vanish look like resets.
func (s *sessionMetrics) Closed() {}

func (s *sessionMetrics) resolve(lun uint64) *lunMetrics {
	// Single-level LUN, peripheral or flat addressing (SAM-5 section 4.7.7).
	disk := (*s.names)[s.target][uint16(lun>>48)&0x3FFF]
	if disk == "" {
		disk, lun = "none", ^uint64(0) // all LUNs that are not there share a series
	}
	l := &lunMetrics{}
	for op := range operations {
		name := operationNames[op]
		l[op].latency = s.m.latency.WithLabelValues(disk, s.initiator, name)
		l[op].bytes = s.m.bytes.WithLabelValues(disk, s.initiator, name)
		l[op].errors = s.m.errors.WithLabelValues(disk, s.initiator, name)
	}
	s.luns[lun] = l
	return l
}

// nodeCollector reads the node's own figures when it is scraped.
type nodeCollector struct{ a *appliance }

var (
	brickLabels      = []string{"brick"}
	descBrickUp      = prometheus.NewDesc("petal_brick_up", "1 while the brick serves, 0 when it has failed.", brickLabels, nil)
	descBrickUsed    = prometheus.NewDesc("petal_brick_used_bytes", "Space that holds data.", brickLabels, nil)
	descBrickTotal   = prometheus.NewDesc("petal_brick_total_bytes", "Space of the brick.", brickLabels, nil)
	descBrickRotten  = prometheus.NewDesc("petal_brick_checksum_errors_total", "Blocks read that failed their checksum.", brickLabels, nil)
	descJournalUsed  = prometheus.NewDesc("petal_journal_used_bytes", "Journal space not yet trimmed.", brickLabels, nil)
	descJournalTotal = prometheus.NewDesc("petal_journal_total_bytes", "Space of the journal.", brickLabels, nil)
	descCacheUsed    = prometheus.NewDesc("petal_cache_used_bytes", "Memory that holds cached blocks.", nil, nil)
	descCacheBudget  = prometheus.NewDesc("petal_cache_budget_bytes", "Memory that the cache may use.", nil, nil)
	descCacheHits    = prometheus.NewDesc("petal_cache_hits_total", "Blocks found in the cache.", nil, nil)
	descCacheMisses  = prometheus.NewDesc("petal_cache_misses_total", "Blocks not found in the cache.", nil, nil)
	descSessions     = prometheus.NewDesc("petal_sessions", "Sessions logged in.", []string{"target"}, nil)
	descDiskSize     = prometheus.NewDesc("petal_disk_size_bytes", "Size of a disk.", []string{"disk"}, nil)
	descDiskUsed     = prometheus.NewDesc("petal_disk_used_bytes", "Space that a disk occupies.", []string{"disk"}, nil)
	descDiskServed   = prometheus.NewDesc("petal_disk_served_percent", "Part of a disk that the cluster serves now.", []string{"disk"}, nil)
	descDiskHealthy  = prometheus.NewDesc("petal_disk_healthy", "1 while a disk has all its copies.", []string{"disk"}, nil)
	descLease        = prometheus.NewDesc("petal_lease", "1 while the cluster lets this node serve disks.", nil, nil)
	descQuorum       = prometheus.NewDesc("petal_quorum", "1 while this node hears from a majority of the voters.", nil, nil)
	descNodes        = prometheus.NewDesc("petal_nodes", "Members of the cluster.", []string{"state"}, nil)
	descResyncLeft   = prometheus.NewDesc("petal_resync_left_bytes", "What this node still has to copy of what it missed.", []string{"link"}, nil)
	descResyncCopied = prometheus.NewDesc("petal_resync_copied_bytes", "What this node has copied since it began to catch up.", []string{"link"}, nil)
	descResyncRate   = prometheus.NewDesc("petal_resync_bytes_per_second", "How fast this node catches up.", []string{"link"}, nil)
	descResyncETA    = prometheus.NewDesc("petal_resync_seconds_left", "How long this node still catches up at its present rate; absent while it copies nothing.", []string{"link"}, nil)
	descUnrecovered  = prometheus.NewDesc("petal_unrecoverable_bytes", "What this node misses and no node has any more: reading it is an error.", []string{"link"}, nil)
	descPath         = prometheus.NewDesc("petal_path_total", "Parts of commands by what became of them on the way: remote (sent to another node), redirect (by a view that was old), retry, cancel, expired, hedge (a late read asked of another copy too), hedge_won.", []string{"what"}, nil)
	descProblems     = prometheus.NewDesc("petal_problems", "Number of problems that `petal status` lists.", nil, nil)
)

// Describe describes nothing: the collector is unchecked, as disks come and go.
func (nodeCollector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present figures.
func (c nodeCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	st, _ := c.a.Status(context.Background())
	path := c.a.node.Status().Path
	for what, n := range map[string]uint64{"remote": path.Remote, "redirect": path.Redirects, "retry": path.Retries, "cancel": path.Cancels, "expired": path.Expired,
		"hedge": path.Hedges, "hedge_won": path.HedgeWins} {
		counter(descPath, n, what)
	}
	for _, b := range st.Bricks {
		up := 1.0
		if b.State != "ok" {
			up = 0
		}
		gauge(descBrickUp, up, b.Path)
		gauge(descBrickUsed, float64(b.Used), b.Path)
		gauge(descBrickTotal, float64(b.Total), b.Path)
		counter(descBrickRotten, b.ChecksumErrors, b.Path)
		gauge(descJournalUsed, float64(b.JournalUsed), b.Path)
		gauge(descJournalTotal, float64(b.JournalCapacity), b.Path)
	}
	gauge(descCacheUsed, float64(st.Cache.Used))
	gauge(descCacheBudget, float64(st.Cache.Budget))
	counter(descCacheHits, st.Cache.Hits)
	counter(descCacheMisses, st.Cache.Misses)
	gauge(descProblems, float64(len(st.Problems)))
	gauge(descLease, one(st.Cluster.Lease))
	gauge(descQuorum, one(st.Cluster.Quorum))
	gauge(descNodes, float64(st.Cluster.Up), "up")
	gauge(descNodes, float64(st.Cluster.Nodes-st.Cluster.Up), "down")
	for _, r := range st.Resync {
		gauge(descResyncLeft, float64(r.Left), r.Link)
		gauge(descResyncCopied, float64(r.Copied), r.Link)
		gauge(descResyncRate, r.Rate, r.Link)
		gauge(descUnrecovered, float64(r.Unrecoverable), r.Link)
		if r.Seconds > 0 {
			gauge(descResyncETA, r.Seconds, r.Link)
		}
	}
	for target, n := range c.a.sessionsOf() {
		gauge(descSessions, float64(n), target)
	}
	disks, _ := c.a.Disks(context.Background())
	for _, d := range disks {
		gauge(descDiskSize, float64(d.Size), d.Name)
		gauge(descDiskUsed, float64(d.Used), d.Name)
		gauge(descDiskServed, float64(d.Health.Served), d.Name)
		gauge(descDiskHealthy, one(d.Health.State == "healthy"), d.Name)
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
