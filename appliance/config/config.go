// Package config reads petal.toml, the one file that says what a node is: where
// it keeps its data, where it listens, and how much memory it may take.
//
// It parses, fills in defaults and validates; it does not look at the disk or
// the network, so that `petal config check` is safe to run anywhere. What the
// cluster agrees on (disks, targets, access lists, CHAP secrets) is not in this
// file but in the node's own state, changed with `petal disk` and `petal target`.
//
// Every problem is an [Error] that names the line, the key, the value and what
// to write instead; all problems of a file are reported at once.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Bounds of the values, checked at Load.
const (
	MinCache   = 64 << 20  // bytes
	MinJournal = 256 << 20 // bytes: four segments
	MaxJournal = 64 << 30
	MaxPortals = 16 // an initiator uses at most four per host and disk
	MaxBricks  = 64
	MaxPeers   = 64
	// MaxPortalGroup leaves room for the server's number in the 16 bits of a
	// target portal group tag: (group - 1) x 4096 + server.
	MaxPortalGroup = 15
	maxFile        = 1 << 20 // bytes of a petal.toml
)

// Defaults of the values that do not depend on the machine.
const (
	DefaultFile         = "/etc/petal/petal.toml"
	DefaultDir          = "/var/lib/petal"
	DefaultSocket       = "/run/petal/admin.sock"
	DefaultPortal       = "127.0.0.1:3260"
	DefaultIQNBase      = "iqn.2026-11.petal"
	DefaultJournal      = 1 << 30
	DefaultNopInterval  = 10 * time.Second
	DefaultNopTimeout   = 10 * time.Second
	DefaultLoginTimeout = 15 * time.Second
	DefaultDrainTimeout = 20 * time.Second
	DefaultPortalGroup  = 1
	DefaultResyncRate   = 50 << 20 // bytes per second
	// DefaultCertificateLife is package pki's.
	DefaultCertificateLife = 365 * 24 * time.Hour
	shortestCertificate    = 10 * time.Second
	longestCertificate     = 20 * 365 * 24 * time.Hour // the authority's
	fractionOfMemory       = 8                         // the cache takes an eighth
	shortestNop            = time.Second
	longestTimeout         = 10 * time.Minute
	longestInterval        = 24 * time.Hour
	leastScale             = 0.1
	greatestScale          = 100.0
	longestNodeNameBytes   = 63
)

// Config is what one node is told. The zero value is not usable; start from
// Default or Load.
type Config struct {
	Node    Node
	Cluster Cluster
	Time    Time
	Bricks  []Brick  // at least one, but none of a witness
	Portals []Portal // at least one, but none of a witness
	Cache   int64    // bytes of the read cache
	ISCSI   ISCSI
	Admin   Admin
	Log     Log

	// AcceptLoss starts a node whose journal has lost acknowledged writes. It is
	// said for one start only (serve --accept-loss), so the file has no key for it.
	AcceptLoss bool
}

// Node is the node itself.
type Node struct {
	Name  string        // shown in status and metrics
	Dir   string        // the node's own state; absolute
	Drain time.Duration // how long commands in flight may take to end at a stop
}

// Cluster is the node's place among others. Without Listen it has none: it is a
// cluster of its own.
type Cluster struct {
	Listen    string   // host:port for the other nodes; empty: there are none
	Advertise string   // host:port at which they reach it; empty: Listen
	Peers     []string // host:port where other nodes may be, beside what the cluster knows of them
	Site      string   // copies of the same data lie in different sites, where that can be
	Plain     bool     // talk to the others without TLS
	Witness   bool     // a vote in the cluster and nothing else

	CertificateLife time.Duration // of the certificates that this node signs
	ResyncRate      int64         // bytes per second that the node copies of what it has missed
}

// MakeWitness makes the node one that only votes: without portals and bricks.
func (c *Config) MakeWitness() { c.Cluster.Witness, c.Portals, c.Bricks = true, nil, nil }

// Address is where other nodes reach this one, or empty.
func (c Cluster) Address() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Listen
}

// TimeNames are the keys of the intervals in [time], in the order in which they
// lie in Time.
var TimeNames = [...]string{"lease", "renewal", "guard", "collect", "tick", "heartbeat", "election", "admission", "command", "complain", "barrier", "replace"}

// Time is the intervals that the cluster's safety and patience rest on. All
// nodes of a cluster have the same.
type Time struct {
	Scale     float64                       // multiplies them all
	Intervals [len(TimeNames)]time.Duration // as TimeNames; 0: the default
}

// Brick is one disk's directory.
type Brick struct {
	Path     string // absolute; nothing else may live in it
	Journal  int64  // bytes
	Capacity int64  // bytes it may fill; 0: what its file system has
}

// Portal is one address that initiators log in to.
type Portal struct {
	Listen    string // host:port; an empty host is every address
	Advertise string // host:port that discovery answers; empty: the address the initiator came to
	Group     uint16 // 1 to MaxPortalGroup: portals of one group make one SCSI port
}

// ISCSI are the protocol's timers and names.
type ISCSI struct {
	IQNBase      string        // targets are named IQNBase:NAME unless told otherwise
	NopInterval  time.Duration // silence after which a session is pinged
	NopTimeout   time.Duration // a ping unanswered for this long ends the connection
	LoginTimeout time.Duration // for the whole login phase
}

// Admin are the operator's doors.
type Admin struct {
	Socket  string // unix socket, mode 0600
	Metrics string // host:port for Prometheus; empty: on the socket only
}

// Log is how the node talks.
type Log struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Default is the configuration of one node that lives wholly under dir.
func Default(dir string) *Config {
	c := empty()
	c.Node.Dir = dir
	c.Admin.Socket = filepath.Join(dir, "admin.sock")
	c.complete()
	return c
}

// Load reads the file at path. The error is an [Errors] if the file could be
// read but says something that cannot be.
func Load(path string) (*Config, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Errors{{File: path, Problem: "there is no such file",
			Advice: "write one with `petal config example > " + path + "`, or start without it: `petal serve --dir DIR`"}}
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, Errors{{File: path, Problem: fmt.Sprintf("%d bytes is too long for a configuration", info.Size()),
			Advice: "is this the right file?"}}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, string(text))
}

// Parse is Load for a text in memory; name is what errors call it.
func Parse(name, text string) (*Config, error) {
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		return nil, Errors{syntaxError(name, text, err)}
	}
	c := empty()
	r := reader{config: c, lines: keyLines(text)}
	r.read(tree)
	if len(r.errs) == 0 {
		c.complete()
		r.crossCheck(c)
	}
	if len(r.errs) > 0 {
		for i := range r.errs {
			r.errs[i].File = name
		}
		return nil, r.errs.sorted()
	}
	return c, nil
}

// syntaxError turns the decoder's error into ours.
func syntaxError(name, text string, err error) Error {
	e := Error{File: name, Problem: err.Error(), Advice: "strings need quotes; `petal config example` prints a whole file that is right"}
	var parse toml.ParseError
	if errors.As(err, &parse) {
		// The decoder counts a newline that is itself the trouble.
		e.Line, e.Problem = 1+strings.Count(text[:min(parse.Position.Start, len(text))], "\n"), parse.Message
		if e.Problem == "" {
			e.Problem = err.Error()
		}
	}
	return e
}

func empty() *Config {
	return &Config{
		Node:    Node{Drain: DefaultDrainTimeout},
		Time:    Time{Scale: 1},
		Cluster: Cluster{CertificateLife: DefaultCertificateLife, ResyncRate: DefaultResyncRate},
		ISCSI:   ISCSI{IQNBase: DefaultIQNBase, NopInterval: DefaultNopInterval, NopTimeout: DefaultNopTimeout, LoginTimeout: DefaultLoginTimeout},
		Log:     Log{Level: slog.LevelInfo, Format: "text"},
	}
}

// complete fills in what depends on other values or on the machine.
func (c *Config) complete() {
	if c.Node.Name == "" {
		c.Node.Name = hostName()
	}
	if c.Node.Dir == "" {
		c.Node.Dir = DefaultDir
	}
	if c.Cluster.Witness {
		c.completeRest()
		return
	}
	if len(c.Bricks) == 0 {
		c.Bricks = []Brick{{Path: filepath.Join(c.Node.Dir, "brick")}}
	}
	for i := range c.Bricks {
		if c.Bricks[i].Journal == 0 {
			c.Bricks[i].Journal = DefaultJournal
		}
	}
	if len(c.Portals) == 0 {
		c.Portals = []Portal{{Listen: DefaultPortal}}
	}
	for i := range c.Portals {
		if c.Portals[i].Group == 0 {
			c.Portals[i].Group = DefaultPortalGroup
		}
	}
	c.completeRest()
}

func (c *Config) completeRest() {
	if c.Cache == 0 {
		c.Cache = DefaultCache()
	}
	if c.Admin.Socket == "" {
		c.Admin.Socket = DefaultSocket
	}
}

func hostName() string {
	name, err := os.Hostname()
	if err != nil || CheckNodeName(name) != nil {
		return "petal"
	}
	return name
}
