package link

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petal/placement"
)

var rewrite = flag.Bool("rewrite", false, "write what the transcripts in testdata should say")

// TestTranscripts runs testdata/*.txt: comments, commands, and after ---- what
// each command makes the machines do, up to an empty line.
//
//	copies N              a link of N members, all connected, nobody knows a configuration
//	config VER IN HEAD    all members that are up apply it: IN are letters, as in ABC
//	lease M               M gets a lease; lapse M ends it
//	write M BUCKET        a write at head M
//	durable M             the brick of M does all it has to
//	deliver               all messages arrive, and those they cause, in turn
//	deliver M M           what the first has sent to the second arrives
//	tick M                time passes at M; patience M: all of it
//	crash M, restart M    M's machine is gone; it is there again, with what is durable
//	read M BUCKET         may M serve a read, with records in doubt if there are
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			want, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *rewrite {
				if err := os.WriteFile(f, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s says otherwise; explain the difference, then -rewrite:\n%s", f, got)
			}
		})
	}
}

func replay(t *testing.T, text string) string {
	var out strings.Builder
	s := &stage{t: t, out: &out}
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		l := lines[i]
		if l == "" || strings.HasPrefix(l, "#") {
			if i < len(lines)-1 {
				out.WriteString(l + "\n")
			}
			continue
		}
		if l != "----" {
			out.WriteString(l + "\n")
			s.run(strings.Fields(l))
			continue
		}
		for i+1 < len(lines) && lines[i+1] != "" {
			i++
		}
		out.WriteString("----\n" + s.said.String())
		s.said.Reset()
	}
	return out.String()
}

// stage is a link whose bricks and connections a transcript commands.
type stage struct {
	t    *testing.T
	out  *strings.Builder
	said strings.Builder
	m    []*Machine
	cfg  placement.Config
	idx  uint64
	now  time.Duration
	todo [][]Event  // of each brick
	disk [][]Record // in each journal, not known to be committed
	done []map[placement.Bucket]placement.Stamp
	q    [][][]Effect // sent from, to
}

func (s *stage) run(f []string) {
	m := func(i int) int { return int(f[i][0] - 'A') }
	num := func(i int) (n uint64) { fmt.Sscan(f[i], &n); return }
	switch f[0] {
	case "copies":
		s.begin(int(num(1)))
	case "config":
		s.idx++
		s.cfg = placement.Config{Ver: num(1), InSync: set(f[2]), Head: placement.Member(m(3))}
		for i := range s.m {
			s.step(i, Event{Kind: EventConfig, Config: s.cfg, Index: s.idx})
		}
	case "lease":
		s.step(m(1), Event{Kind: EventLease, Until: 1 << 60, Index: s.idx})
	case "lapse":
		s.step(m(1), Event{Kind: EventLease})
	case "fence":
		s.step(m(1), Event{Kind: EventFence, Ver: s.cfg.Ver})
	case "write":
		s.write(m(1), placement.Bucket(num(2)))
	case "durable":
		s.durable(m(1))
	case "deliver":
		s.deliver(f[1:])
	case "tick":
		s.step(m(1), Event{Kind: EventTick})
	case "patience":
		s.now += time.Minute
		s.step(m(1), Event{Kind: EventTick})
	case "crash":
		s.crash(m(1))
	case "restart":
		s.restart(m(1))
	case "read":
		b := placement.Bucket(num(2))
		conflict := false
		for _, r := range s.disk[m(1)] {
			conflict = conflict || r.Bucket == b && s.done[m(1)][b].Before(r.Stamp)
		}
		s.say(m(1), "%s", s.m[m(1)].MayRead(b, conflict, s.now))
	default:
		s.t.Fatalf("%q is no command", f)
	}
}

func set(letters string) (in placement.Members) {
	for _, c := range letters {
		in = in.With(placement.Member(c - 'A'))
	}
	return in
}

func letters(in placement.Members) (t string) {
	for ; in != 0; in = in.Without(in.First()) {
		t += string(rune('A' + in.First()))
	}
	return t
}

func (s *stage) say(i int, format string, a ...any) {
	fmt.Fprintf(&s.said, "%c: %s\n", 'A'+i, fmt.Sprintf(format, a...))
}

func (s *stage) begin(n int) {
	*s = stage{t: s.t, out: s.out, todo: make([][]Event, n), disk: make([][]Record, n), done: make([]map[placement.Bucket]placement.Stamp, n), q: make([][][]Effect, n)}
	for i := range n {
		s.q[i] = make([][]Effect, n)
		s.done[i] = map[placement.Bucket]placement.Stamp{}
		s.m = append(s.m, New(Options{Self: placement.Member(i), Copies: n, Complain: time.Second}))
	}
	for i := range n {
		for j := range n {
			if i != j {
				s.step(i, Event{Kind: EventUp, Member: placement.Member(j)})
			}
		}
	}
}

func (s *stage) write(i int, b placement.Bucket) {
	st, x, v := s.m[i].Admit(b, s.now)
	s.say(i, "%s", v)
	if v == Take {
		s.take(i, Event{Kind: EventAppended, Rec: Record{Bucket: b, Stamp: st, Excluded: x}})
	}
}

func (s *stage) take(i int, ev Event) {
	s.disk[i] = append(s.disk[i], ev.Rec)
	s.todo[i] = append(s.todo[i], Event{Kind: EventDurable, Rec: ev.Rec})
	s.step(i, ev)
}

func (s *stage) durable(i int) {
	for len(s.todo[i]) > 0 {
		ev := s.todo[i][0]
		s.todo[i] = s.todo[i][1:]
		s.step(i, ev)
	}
}

// step gives a machine an event, and notes what it wants.
func (s *stage) step(i int, ev Event) {
	if s.m[i] == nil {
		return
	}
	was := s.m[i].State()
	fx := append([]Effect(nil), s.m[i].Step(&ev, s.now)...)
	if is := s.m[i].State(); is != was {
		s.say(i, "%s -> %s", was, is)
	}
	for _, e := range fx {
		s.effect(i, e)
	}
}

func (s *stage) effect(i int, e Effect) {
	later := func(ev Event) { s.todo[i] = append(s.todo[i], ev) }
	b := e.Bucket
	switch e.Kind {
	case EffectSend:
		e.Msg.List = append([]Entry(nil), e.Msg.List...)
		s.q[i][e.Member] = append(s.q[i][e.Member], e)
	case EffectCommit:
		s.done[i][e.Rec.Bucket] = e.Rec.Stamp
		s.say(i, "commit %d:%s", e.Rec.Bucket, e.Rec.Stamp)
	case EffectDiscard:
		s.say(i, "discard %d:%s", e.Rec.Bucket, e.Rec.Stamp)
		later(Event{Kind: EventDiscarded, Rec: e.Rec})
	case EffectMark:
		s.say(i, "mark %d:%s for %s", e.Rec.Bucket, e.Rec.Stamp, letters(e.Members))
		later(Event{Kind: EventMarked, Rec: e.Rec})
	case EffectWitness:
		later(Event{Kind: EventWitnessed, Ver: e.Ver})
	case EffectDropMarks: // there are none
		s.step(i, Event{Kind: EventDropped})
	case EffectSendRange:
		s.say(i, "send %c what is in %d after %s up to %s", 'A'+e.Member, b, e.Prev, e.Stamp)
		s.sendRange(i, e)
	case EffectSendCut:
		s.say(i, "cut %d at %s for %c, which is at %s: common up to %s", b, e.Stamp, 'A'+e.Member, e.Prev, e.Common)
		s.q[i][e.Member] = append(s.q[i][e.Member], Effect{Msg: Msg{Kind: MsgCut, Ver: e.Ver, Bucket: b, Stamp: e.Stamp, Prev: e.Common, Session: e.Session, First: true, Last: true}})
		later(Event{Kind: EventCutSent, Member: e.Member, Bucket: b, Session: e.Session})
	case EffectStoreCut:
		s.say(i, "blocks of %d go missing", b)
	case EffectSealCut:
		s.say(i, "%d is cut at %s", b, e.Stamp)
		s.done[i][b] = e.Stamp
		later(Event{Kind: EventCutStored, Bucket: b})
	case EffectOpened:
		s.say(i, "serves under %d", e.Ver)
	case EffectClosed:
		s.say(i, "serves no more: %s", e.Cause)
	case EffectPropose:
		s.say(i, "proposes %s %c under %d", e.What, 'A'+e.Member, e.Ver)
	}
}

// sendRange sends from the journal; the transcripts destage nothing.
func (s *stage) sendRange(i int, e Effect) {
	prev := e.Prev
	for _, r := range s.disk[i] {
		if r.Bucket == e.Bucket && prev.Before(r.Stamp) && !e.Stamp.Before(r.Stamp) {
			s.q[i][e.Member] = append(s.q[i][e.Member], Effect{Msg: Msg{Kind: MsgRecover, Ver: e.Ver, Bucket: e.Bucket, Stamp: r.Stamp, Prev: prev, Excluded: r.Excluded | e.Members}})
			prev = r.Stamp
		}
	}
}

func (s *stage) deliver(f []string) {
	if len(f) == 2 {
		s.deliverAll(int(f[0][0]-'A'), int(f[1][0]-'A'))
		return
	}
	for again := true; again; {
		again = false
		for i := range s.q {
			for j := range s.q {
				again = s.deliverAll(i, j) || again
			}
		}
	}
}

func (s *stage) deliverAll(i, j int) (some bool) {
	for len(s.q[i][j]) > 0 && s.m[j] != nil {
		msg := s.q[i][j][0].Msg
		s.q[i][j] = s.q[i][j][1:]
		some = true
		text := msg.Kind.String()
		if msg.Stamp != (placement.Stamp{}) {
			text += fmt.Sprintf(" %d:%s", msg.Bucket, msg.Stamp)
		}
		for _, e := range msg.List {
			text += fmt.Sprintf(" %d:%s", e.Bucket, e.Stamp)
		}
		fmt.Fprintf(&s.said, "%c > %c %s\n", 'A'+i, 'A'+j, text)
		if msg.Kind == MsgReplicate || msg.Kind == MsgRecover {
			v := s.m[j].Accept(placement.Member(i), &msg)
			if v == Take {
				s.take(j, Event{Kind: EventAppended, Rec: Record{Bucket: msg.Bucket, Stamp: msg.Stamp, Excluded: msg.Excluded}, Committed: msg.Committed})
				continue
			}
			s.say(j, "%s", v)
		}
		s.step(j, Event{Kind: EventMessage, Member: placement.Member(i), Msg: &msg})
	}
	return some
}

// crash leaves what is durable.
func (s *stage) crash(x int) {
	lost := map[Record]bool{}
	for _, ev := range s.todo[x] {
		lost[ev.Rec] = ev.Kind == EventDurable
	}
	var kept []Record
	for _, r := range s.disk[x] {
		if !lost[r] {
			kept = append(kept, r)
		}
	}
	s.disk[x], s.todo[x], s.m[x] = kept, nil, nil
	for y := range s.m {
		s.q[x][y], s.q[y][x] = nil, nil
		s.step(y, Event{Kind: EventDown, Member: placement.Member(x)})
	}
}

// restart gives a new machine the journal, of which it knows nothing to be
// committed but what a cut says.
func (s *stage) restart(x int) {
	s.m[x] = New(Options{Self: placement.Member(x), Copies: len(s.m), Complain: time.Second})
	byBucket := map[placement.Bucket][]Record{}
	for _, r := range s.disk[x] {
		byBucket[r.Bucket] = append(byBucket[r.Bucket], r)
	}
	for b := range placement.Bucket(64) {
		s.m[x].Restore(b, placement.Stamp{}, byBucket[b])
	}
	s.step(x, Event{Kind: EventConfig, Config: s.cfg, Index: s.idx})
	for y := range s.m {
		if y != x && s.m[y] != nil {
			s.step(x, Event{Kind: EventUp, Member: placement.Member(y)})
			s.step(y, Event{Kind: EventUp, Member: placement.Member(x)})
		}
	}
}
