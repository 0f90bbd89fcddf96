// Command benchtab is `make bench`: it starts petal and other iSCSI targets on
// loopback ports, with their data on the same file system, runs the standard
// jobs on petal and on one of them in alternation, and prints a table.
//
//	pair                     durability of an acknowledged write
//	petal  / tgtd            on stable storage, both (WCE=0)
//	petal  / tgtd            in a volatile cache, both (WCE=1)
//	petal  / gotgt           in a volatile cache, both (gotgt has nothing else)
//
// With --nodes N the first of each pair is a cluster of N nodes with a mirrored
// disk, reached at one of its nodes, and the pairs are others:
//
//	cluster        / petal   what the second copy and the network cost
//	cluster-plain  / petal   the same without TLS between the nodes
//	cluster        / tgtd
//	cluster-dead   / cluster one node of N dead, every node held to --cpu: on shared
//	                         cores a dead node's part would go to the living.
//	                         Sessions through all living nodes, as many on each
//
// What makes the pairs comparable:
//
//   - The region is written once in whole on both before anything is measured
//     (no job measures first allocation), then read once in whole: it is
//     smaller than either server's cache, so reads are served from memory by
//     both.
//   - Jobs alternate from server to server, in rounds, and who comes first
//     changes. A ratio is the median of the rounds' ratios.
//   - WCE is read from the disks, and with strace at hand tgtd is seen to call
//     fdatasync once a write while WCE is 0.
//   - tgtd is given larger bursts than its defaults, as petal has them, unless
//     --stock-tgtd is set.
//
// The load generator runs on the same machine and takes its share of the
// cores, the same for both.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"petal/target/initiator/load"
)

// options are the command line.
type options struct {
	petal, gotgt string
	dir          string
	time         time.Duration
	rounds       int
	size         int64
	port         int
	quick        bool
	json         bool
	stock        bool
	subject      string
	only         string
	jobs         string
	keep         bool
	nodes        int
	cpu          float64
}

func parse(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("benchtab", flag.ContinueOnError)
	f.StringVar(&o.petal, "petal", "bin/petal", "the petal binary")
	f.StringVar(&o.gotgt, "gotgt", "", "a gotgt binary (default: built from target/peers/gotgt)")
	f.StringVar(&o.dir, "dir", ".cache/bench", "where the servers' data go; must be on the file system to be measured")
	f.DurationVar(&o.time, "time", 10*time.Second, "time measured for each job on each server, all rounds together")
	f.IntVar(&o.rounds, "rounds", 5, "rounds")
	f.Int64Var(&o.size, "size", 1<<30, "bytes of the region, a multiple of 1 MiB")
	f.IntVar(&o.port, "port", 13260, "first of three TCP ports on 127.0.0.1")
	f.IntVar(&o.nodes, "nodes", 1, "measure a cluster of so many nodes instead of one")
	f.Float64Var(&o.cpu, "cpu", 0.125, "cores that each node may use where one of them is dead")
	f.BoolVar(&o.quick, "quick", false, "a short look: 256 MiB, 2 rounds, 2 s a job")
	f.BoolVar(&o.json, "json", false, "print JSON in place of the tables")
	f.BoolVar(&o.stock, "stock-tgtd", false, "leave tgtd's negotiation defaults")
	f.StringVar(&o.subject, "subject", "petal", "who is compared with the others: petal, tgtd or gotgt")
	f.StringVar(&o.only, "only", "", "run only the pairs whose name contains this")
	f.StringVar(&o.jobs, "jobs", "", "run only the jobs whose name contains this")
	f.BoolVar(&o.keep, "keep", false, "leave the servers' data and logs in place")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag", f.Arg(0))
	}
	if o.quick {
		o.time, o.rounds, o.size = 2*time.Second, 2, 256<<20
	}
	if o.nodes < 1 || o.nodes > 16 || o.nodes == 2 || o.nodes == 3 || o.cpu <= 0 {
		return nil, fmt.Errorf("--nodes must be 1 or 4 to 16, and --cpu positive")
	}
	if o.time <= 0 || o.rounds < 1 || o.size < 1<<20 || o.size%(1<<20) != 0 {
		return nil, fmt.Errorf("--time, --rounds and --size must be positive, and --size a multiple of 1 MiB")
	}
	return o, nil
}

// pair is one comparison.
type pair struct {
	Name      string       `json:"name"`
	WriteBack bool         `json:"write_back"`
	Subject   string       `json:"subject"`
	Peer      string       `json:"peer"`
	Held      bool         `json:"held,omitempty"` // each node of both has a CPU budget of its own
	Notes     []string     `json:"notes,omitempty"`
	Left      string       `json:"left_out,omitempty"` // why it was not run
	Verdicts  []string     `json:"verdicts,omitempty"`
	Result    *load.Result `json:"result,omitempty"`
}

func pairs(o *options) []*pair {
	all := []*pair{
		{Name: "write-through: " + o.subject + " / tgtd", Subject: o.subject, Peer: "tgtd"},
		{Name: "write-back: " + o.subject + " / tgtd", Subject: o.subject, Peer: "tgtd", WriteBack: true},
		{Name: "write-back: " + o.subject + " / gotgt", Subject: o.subject, Peer: "gotgt", WriteBack: true},
	}
	if o.nodes > 1 {
		all = []*pair{
			{Name: "write-through: cluster / petal", Subject: "cluster", Peer: "petal"},
			{Name: "write-through: cluster-plain / petal", Subject: "cluster-plain", Peer: "petal"},
			{Name: "write-through: cluster / tgtd", Subject: "cluster", Peer: "tgtd"},
			{Name: "write-through: cluster-dead / cluster", Subject: "cluster-dead", Peer: "cluster", Held: true},
		}
	}
	var out []*pair
	for _, p := range all {
		if strings.Contains(p.Name, o.only) && p.Peer != p.Subject {
			out = append(out, p)
		}
	}
	return out
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchtab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	m := machine(o.dir)
	list := pairs(o)
	if len(list) == 0 {
		return fmt.Errorf("no pair has %q in its name", o.only)
	}
	for _, p := range list {
		if err := p.run(ctx, o); err != nil {
			if ctx.Err() != nil {
				return err
			}
			// The others are still worth having; the exit code tells.
			p.Left = err.Error()
			fmt.Fprintf(os.Stderr, "%s: %v\n", p.Name, err)
		}
	}
	if o.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(struct {
			Machine []string `json:"machine"`
			Pairs   []*pair  `json:"pairs"`
		}{m, list})
	} else {
		err = writeTables(os.Stdout, o, m, list)
	}
	for _, p := range list {
		if p.Left != "" && err == nil {
			err = fmt.Errorf("%s was not measured: %s", p.Name, p.Left)
		}
	}
	return err
}

// warmup comes before every measurement.
const warmup = 500 * time.Millisecond

// run starts the two servers, loads them, and stops them.
func (p *pair) run(ctx context.Context, o *options) error {
	dir, err := os.MkdirTemp(o.dir, "pair-")
	if err != nil {
		return err
	}
	if !o.keep {
		defer os.RemoveAll(dir)
	}
	c := load.Config{
		Rounds: o.rounds, Time: o.time / time.Duration(o.rounds), Warmup: warmup, Seed: 1,
		Size: o.size, Fill: true, Prime: true,
	}
	c.Options.AnyStatSN = p.Subject == "gotgt" || p.Peer == "gotgt"
	if i, err := os.Stderr.Stat(); err == nil && i.Mode()&os.ModeCharDevice != 0 {
		c.Progress = os.Stderr
	}
	jobs := load.StandardJobs()
	if p.Held {
		jobs = heldJobs(o.nodes)
	}
	for _, j := range jobs {
		// Names are made by Run, from the job; match on the same text.
		if strings.Contains(j.Describe(), o.jobs) {
			c.Jobs = append(c.Jobs, j)
		}
	}
	for i, name := range []string{p.Subject, p.Peer} {
		s, err := start(ctx, name, &setting{
			options: o, dir: filepath.Join(dir, name), port: o.port + i, writeBack: p.WriteBack, held: p.Held,
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer s.stop()
		c.URLs, c.PIDs = append(c.URLs, s.url), append(c.PIDs, s.pid)
		if p.Held {
			c.Portals = append(c.Portals, s.portals)
		}
		p.Notes = append(p.Notes, s.notes...)
	}
	r, err := load.Run(ctx, c)
	if err != nil {
		return err
	}
	p.Result = &r
	p.Verdicts = p.verdicts(o.nodes)
	for _, d := range r.Disks {
		if d.WriteCache != p.WriteBack {
			return fmt.Errorf("%s says WCE=%t, wanted is %t", d.URL, d.WriteCache, p.WriteBack)
		}
		if d.ErrorCount > 0 {
			return fmt.Errorf("%s: %d I/O errors, the first: %s", d.URL, d.ErrorCount, d.Errors[0].Error)
		}
	}
	return nil
}
