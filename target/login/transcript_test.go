package login

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"petal/target/iscsi"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the transcripts in testdata with what the code does")

// TestTranscripts plays the logins of testdata. A transcript is a list of
// blocks, a command with its lines, "----", and what came of it:
//
//	# a comment
//	login T csg=0 nsg=1
//	InitiatorName=iqn.2004-10.com.example:host
//	----
//	T csg=0 nsg=1 success more
//	AuthMethod=None
//
// Commands:
//
//	target [status=0x0203] [redirect=A] [tpg=N] [alias=A] [chap=USER:SECRET] [mutual=USER:SECRET] [algorithms=5,6]
//	        what the Authority admits from now on; a new login begins
//	session cid=N tsih=N   exists for whoever logs in; a new login begins
//	new                    a new login begins
//	full                   no TSIH is free
//	norandom               the random source fails
//	login [T] [C] csg=N nsg=N [tsih=N] [cid=N] [cmdsn=N] [vmin=N] [op=N]
//	        a request; $R(secret) in its text is the right CHAP_R, $C our challenge in hexadecimal
//	result                 what was agreed upon
//	text [F] [C] [ttt=N] [itt=N]  a text request in full feature phase
//	portals N              SendTargets tells of N portals
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { playFile(t, f) })
	}
}

func playFile(t *testing.T, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := newStage()
	var out bytes.Buffer
	var block []string
	skipping := false // the old output
	for _, line := range strings.Split(strings.TrimRight(string(b), "\n"), "\n") {
		switch {
		case skipping:
			if skipping = line != ""; !skipping {
				out.WriteString("\n")
			}
		case line == "----":
			fmt.Fprintf(&out, "----\n%s", s.play(block))
			block, skipping = nil, true
		default:
			out.WriteString(line + "\n")
			if line != "" && !strings.HasPrefix(line, "#") {
				block = append(block, line)
			}
		}
	}
	if *rewrite {
		if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, got := strings.Split(string(b), "\n"), strings.Split(out.String(), "\n")
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("%s:%d: got\n\t%s\nwant\n\t%s\n(go test -run Transcripts -rewrite shows it all as a diff)", path, i+1, at(got, i), at(want, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}

// stage is what a transcript plays on.
type stage struct {
	admission Admission
	cid, tsih uint16 // existing session
	full      bool
	noRandom  bool
	portals   int

	m    *Machine
	text *Text
}

func newStage() *stage {
	s := &stage{admission: Admission{PortalGroup: 1}, portals: 1}
	s.restart()
	return s
}

func (s *stage) restart() {
	s.m, s.text = New(Config{Authority: s, Sessions: s, Random: s, StatSN: 1, Window: 64}), nil
}

func (s *stage) Admit(initiator, target string) Admission { return s.admission }

func (s *stage) Targets(initiator string) []Target {
	a := Target{Name: "iqn.2026-11.petal:a"}
	for i := range s.portals {
		a.Portals = append(a.Portals, Portal{Address: fmt.Sprintf("10.0.%d.%d:3260", i/250, i%250+1), Group: uint16(i%250 + 1)})
	}
	return []Target{a, {Name: "iqn.2026-11.petal:b", Portals: []Portal{{Address: "[fe80::1]:3260", Group: 1}}}}
}

func (s *stage) Connection(n Nexus, tsih uint16) (uint16, bool) {
	return s.cid, s.tsih != 0 && (tsih == 0 || tsih == s.tsih)
}

func (s *stage) NewTSIH() (uint16, bool) { return 7, !s.full }

// Read is the random source: always the same bytes, so that challenges can be
// read in a transcript.
func (s *stage) Read(b []byte) (int, error) {
	if s.noRandom {
		return 0, os.ErrClosed
	}
	r := rand.NewPCG(1, 2)
	for i := range b {
		b[i] = byte(r.Uint64())
	}
	return len(b), nil
}

// play runs one block and returns what came of it.
func (s *stage) play(block []string) string {
	words := strings.Fields(block[0])
	args := make(map[string]string)
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		args[k] = v
	}
	switch words[0] {
	case "target":
		s.setTarget(args)
		return ""
	case "session":
		s.cid, s.tsih = uint16(num(args["cid"])), uint16(num(args["tsih"]))
		s.restart()
		return ""
	case "new":
		s.restart()
		return ""
	case "full":
		s.full = true
		return ""
	case "norandom":
		s.noRandom = true
		return ""
	case "portals":
		s.portals = num(words[1])
		return ""
	case "login":
		return s.login(args, block[1:])
	case "result":
		return s.showResult()
	case "text":
		return s.textRequest(args, block[1:])
	}
	return "unknown command " + words[0] + "\n"
}

func num(s string) int {
	n, _ := strconv.ParseInt(s, 0, 64)
	return int(n)
}

func (s *stage) setTarget(args map[string]string) {
	s.admission = Admission{
		Status: iscsi.LoginStatus(num(args["status"])), Redirect: args["redirect"],
		PortalGroup: uint16(num(args["tpg"])), Alias: args["alias"],
	}
	if c, ok := args["chap"]; ok {
		chap := new(CHAP)
		chap.User, chap.Secret, _ = strings.Cut(c, ":")
		chap.MutualUser, chap.MutualSecret, _ = strings.Cut(args["mutual"], ":")
		for a := range strings.SplitSeq(args["algorithms"], ",") {
			if a != "" {
				chap.Algorithms = append(chap.Algorithms, Algorithm(num(a)))
			}
		}
		s.admission.CHAP = chap
	}
	s.restart()
}

func (s *stage) login(args map[string]string, text []string) string {
	if s.m.state == done || s.m.state == failed {
		s.restart()
	}
	var h iscsi.BHS
	h.Reset(iscsi.OpLoginRequest)
	if op, ok := args["op"]; ok {
		h.Reset(iscsi.Opcode(num(op)))
	}
	h.SetImmediate(true)
	h.SetITT(0x10)
	l := h.LoginRequest()
	_, t := args["T"]
	l.SetTransit(t)
	_, c := args["C"]
	l.SetContinue(c)
	l.SetCSG(iscsi.Stage(num(args["csg"])))
	l.SetNSG(iscsi.Stage(num(args["nsg"])))
	l.SetTSIH(uint16(num(args["tsih"])))
	l.SetCID(uint16(num(args["cid"])))
	l.SetISID(iscsi.ISID{0, 2, 0x3d, 0, 0, 1})
	l.SetVersionMin(uint8(num(args["vmin"])))
	l.SetVersionMax(uint8(num(args["vmin"])))
	l.SetCmdSN(100)
	return showOutput(s.m.Step(&h, s.encode(text, c)))
}

// encode makes text of lines. A line that ends with \ has no null behind it.
func (s *stage) encode(lines []string, c bool) []byte {
	var b []byte
	for _, line := range lines {
		if name, rest, ok := strings.Cut(line, "$R("); ok {
			secret := strings.TrimSuffix(rest, ")")
			line = name + encodeBinary(s.m.auth.algorithm.Response(s.m.auth.id, secret, s.m.auth.challenge))
		}
		line = strings.ReplaceAll(line, "$C", encodeBinary(s.m.auth.challenge))
		line = strings.ReplaceAll(line, `\0`, "\x00")
		if cut, ok := strings.CutSuffix(line, `\`); ok {
			b = append(b, cut...)
			continue
		}
		b = append(append(b, line...), 0)
	}
	return b
}

func showOutput(out Output) string {
	var b strings.Builder
	r := out.Header.LoginResponse()
	if r.Transit() {
		b.WriteString("T ")
	}
	fmt.Fprintf(&b, "csg=%d nsg=%d tsih=%d statsn=%d window=%d..%d %s: %v\n", r.CSG(), r.NSG(), r.TSIH(), r.StatSN(),
		r.Window().First, r.Window().Last, strings.ReplaceAll(r.Status().String(), " ", "-"), out.Verdict)
	showText(&b, out.Data)
	if out.Why != "" {
		fmt.Fprintf(&b, "(%s)\n", out.Why)
	}
	return b.String()
}

func showText(b *strings.Builder, data []byte) {
	for line := range strings.SplitSeq(strings.TrimSuffix(string(data), "\x00"), "\x00") {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
}

func (s *stage) showResult() string {
	r := s.m.Result()
	if r == nil {
		return "none\n"
	}
	return fmt.Sprintf("discovery=%v initiator=%s alias=%q target=%s\nisid=%v tsih=%d cid=%d tpg=%d user=%q reinstates=%v cmdsn=%d statsn=%d\n%+v\n",
		r.Discovery, r.Initiator, r.InitiatorAlias, r.Target, r.ISID, r.TSIH, r.CID, r.PortalGroup, r.User, r.Reinstates, r.CmdSN, r.StatSN, r.Params)
}

func (s *stage) textRequest(args map[string]string, lines []string) string {
	if s.text == nil {
		s.text = NewText(s, s.m.Result())
	}
	var h iscsi.BHS
	h.Reset(iscsi.OpTextRequest)
	h.SetITT(0x20)
	if itt, ok := args["itt"]; ok {
		h.SetITT(uint32(num(itt)))
	}
	r := h.TextRequest()
	_, f := args["F"]
	r.SetFinal(f)
	_, c := args["C"]
	r.SetContinue(c)
	r.SetTTT(iscsi.ReservedTag)
	if ttt, ok := args["ttt"]; ok {
		r.SetTTT(uint32(num(ttt)))
	}
	resp, data, err := s.text.Step(r, s.encode(lines, c))
	if err != nil {
		return fmt.Sprintf("error: %v\n", err)
	}
	var b strings.Builder
	p := resp.TextResponse()
	fmt.Fprintf(&b, "final=%v continue=%v ttt=%#x bytes=%d\n", p.Final(), p.Continue(), p.TTT(), len(data))
	if len(data) < 1000 {
		showText(&b, data)
	}
	return b.String()
}
