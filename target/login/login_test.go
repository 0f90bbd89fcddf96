package login

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"petal/target/iscsi"
)

// The hashes are the right ones: computed with Python's hashlib over 0x11, the
// secret and bytes 0 to 15.
func TestCHAPResponses(t *testing.T) {
	challenge := make([]byte, 16)
	for i := range challenge {
		challenge[i] = byte(i)
	}
	for a, want := range chapResponses {
		if got := hex.EncodeToString(a.Response(0x11, "secret-of-petal", challenge)); got != want {
			t.Errorf("algorithm %d: %s, want %s", a, got, want)
		}
	}
}

func TestDecodeBinary(t *testing.T) {
	long := strings.Repeat("ab", iscsi.MaxLargeBinary)
	for _, tt := range []struct {
		in   string
		want string // hexadecimal, "-" for an error
	}{
		{"0x00ff", "00ff"}, {"0X00FF", "00ff"}, {"0xf", "0f"}, {"0x", ""}, {"0x" + long, long},
		{"0bAAECAw==", "00010203"}, {"0BAAECAw==", "00010203"}, {"0b", ""},
		{"", "-"}, {"0", "-"}, {"00ff", "-"}, {"1x00", "-"}, {"0x0g", "-"}, {"0y00", "-"}, {"0bAAEC\nAw==", "-"},
		{"0bAAECAw", "-"}, {"0bAAECAx==", "-"}, {"0x" + long + "ab", "-"}, {"0b" + strings.Repeat("AAAA", 342), "-"},
	} {
		got, err := decodeBinary(tt.in)
		if err != nil && tt.want == "-" {
			continue
		}
		if err != nil || hex.EncodeToString(got) != tt.want {
			t.Errorf("%.20q: %x, %v; want %.20q", tt.in, got, err, tt.want)
		}
	}
	b := []byte{0, 1, 0xfe}
	if got, err := decodeBinary(encodeBinary(b)); err != nil || !bytes.Equal(got, b) {
		t.Error(got, err)
	}
}

func TestValidate(t *testing.T) {
	ok := CHAP{User: "joe", Secret: "secret-of-joe", MutualUser: "petal", MutualSecret: "secret-of-petal"}
	for _, tt := range []struct {
		name   string
		change func(c *CHAP)
		why    string
	}{
		{"both ways", func(c *CHAP) {}, ""},
		{"one way", func(c *CHAP) { c.MutualUser, c.MutualSecret = "", "" }, ""},
		{"12 bytes", func(c *CHAP) { c.Secret = strings.Repeat("x", 12) }, ""},
		{"255 bytes", func(c *CHAP) { c.Secret = strings.Repeat("x", 255) }, ""},
		{"known algorithms", func(c *CHAP) { c.Algorithms = []Algorithm{MD5, SHA1, SHA256, SHA3256} }, ""},
		{"11 bytes", func(c *CHAP) { c.Secret = strings.Repeat("x", 11) }, "11 bytes"},
		{"256 bytes", func(c *CHAP) { c.Secret = strings.Repeat("x", 256) }, "256 bytes"},
		{"mutual 11 bytes", func(c *CHAP) { c.MutualSecret = strings.Repeat("x", 11) }, "mutual CHAP secret has 11 bytes"},
		{"the same secret", func(c *CHAP) { c.MutualSecret = c.Secret }, "must differ"},
		{"no user", func(c *CHAP) { c.User = "" }, "user names"},
		{"no mutual user", func(c *CHAP) { c.MutualUser = "" }, "user name for the target"},
		{"long user", func(c *CHAP) { c.User = strings.Repeat("u", 256) }, "user names"},
		{"unknown algorithm", func(c *CHAP) { c.Algorithms = []Algorithm{MD5, 9} }, "algorithm 9"},
	} {
		c := ok
		tt.change(&c)
		err := c.Validate()
		if (err == nil) != (tt.why == "") || err != nil && !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// request makes a login request for tests that need no transcript.
func request(transit bool, csg, nsg iscsi.Stage) *iscsi.BHS {
	var h iscsi.BHS
	h.Reset(iscsi.OpLoginRequest)
	l := h.LoginRequest()
	l.SetTransit(transit)
	l.SetCSG(csg)
	l.SetNSG(nsg)
	return &h
}

func text(keys ...string) []byte {
	var b []byte
	for _, k := range keys {
		b = append(append(b, k...), 0)
	}
	return b
}

var names = []string{"InitiatorName=iqn.1993-08.org.debian:01:1", "TargetName=iqn.2026-11.petal:demo"}

// A login cannot be kept up for ever, neither with requests nor with text.
func TestLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		data []byte
		want int // of the request that is refused
	}{
		"requests":   {nil, iscsi.LoginRequests + 1},
		"bytes":      {text("X-a=" + strings.Repeat("a", 2000)), iscsi.LoginBytes/2005 + 2},
		"continued":  {bytes.Repeat([]byte("a"), 2000), iscsi.MaxText/2000 + 2},
		"many pairs": {nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage()
			out := s.m.Step(request(false, 1, 0), text(names...))
			n := 1
			for ; out.Verdict == More && n < 1000; n++ {
				h := request(false, 1, 0)
				data := tt.data
				switch name {
				case "continued":
					h.LoginRequest().SetContinue(true)
				case "many pairs":
					for i := range iscsi.MaxPairs + 1 {
						data = fmt.Appendf(data, "X-%d=\x00", i)
					}
				}
				out = s.m.Step(h, data)
			}
			if n != tt.want || out.Verdict != Failed || out.Status != iscsi.LoginInitiatorError {
				t.Errorf("after %d requests: %v, %v (%s); want %d", n, out.Verdict, out.Status, out.Why, tt.want)
			}
		})
	}
}

// The longest answer fits into the data segment that every initiator takes in
// the login phase.
func TestAnswersFit(t *testing.T) {
	s := newStage()
	s.admission.Alias = strings.Repeat("a", iscsi.MaxAlias)
	keys := slices.Clone(names)
	for i := range rows {
		if r := &rows[i]; r.when&inOperational != 0 && r.kind != received && r.kind != declare {
			keys = append(keys, r.name+"=1")
		}
	}
	for i := len(keys); i < iscsi.MaxPairs; i++ {
		keys = append(keys, fmt.Sprintf("X-%0*d=", iscsi.MaxKeyName-2, i))
	}
	out := s.m.Step(request(false, 1, 0), text(keys...))
	if out.Verdict != More || len(out.Data) > iscsi.DefaultRecvDataSegment || len(out.Data) < 3000 {
		t.Errorf("%v (%s), %d bytes", out.Verdict, out.Why, len(out.Data))
	}
}

// Each challenge and identifier is new.
func TestChallengesDiffer(t *testing.T) {
	seen := make(map[string]bool)
	rnd := rand.NewChaCha8([32]byte{1})
	for range 100 {
		a := authenticator{chap: &CHAP{}, state: authChosen}
		answers, no := a.offerChallenge([]iscsi.Pair{{Key: "CHAP_A", Value: "5"}}, rnd)
		if no != nil {
			t.Fatal(no.why)
		}
		c, _ := iscsi.Lookup(answers, "CHAP_C")
		if seen[c] || len(c) != 2+2*iscsi.ChallengeSize {
			t.Fatal("challenge", c)
		}
		seen[c] = true
	}
}

// The machine panics rather than take a transition that does not exist.
func TestIllegalTransitions(t *testing.T) {
	legal := map[[2]state]bool{
		{leading, security}: true, {leading, operational}: true, {leading, failed}: true,
		{security, operational}: true, {security, done}: true, {security, failed}: true,
		{operational, done}: true, {operational, failed}: true,
	}
	for from := leading; from <= failed; from++ {
		for to := leading; to <= failed; to++ {
			func() {
				defer func() {
					if r := recover(); (r == nil) != legal[[2]state{from, to}] {
						t.Errorf("from %v to %v: %v", from, to, r)
					}
				}()
				m := Machine{state: from}
				m.become(to)
			}()
		}
	}
}

// A machine that has ended takes no request, and every response carries its
// request's tag.
func TestEndedMachinePanics(t *testing.T) {
	for name, data := range map[string][]byte{"done": text(names...), "failed": nil} {
		s := newStage()
		h := request(true, 1, 3)
		h.SetITT(0x01020304)
		if out := s.m.Step(h, data); out.Verdict.String() != name || out.Header.ITT() != h.ITT() {
			t.Fatal(name, out)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error(name, "takes another request")
				}
			}()
			s.m.Step(h, data)
		}()
		if (s.m.Result() != nil) != (name == "done") {
			t.Error(name, "has result", s.m.Result())
		}
	}
}

// Every status is reached by some transcript.
func TestEveryStatusReached(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	for s := range iscsi.LoginStatus(0x400) {
		n := s.String()
		if strings.HasPrefix(n, "login status") {
			continue
		}
		if !bytes.Contains(all, []byte(" "+strings.ReplaceAll(n, " ", "-")+": ")) {
			t.Errorf("%v (%#04x) is in no transcript", s, uint16(s))
		}
	}
}

// twin computes the outcome of a key the slow way, from the words of the
// standard and not from the table: it returns the answer, "" for none.
func twin(key, value string, p *Params) string {
	n, err := strconv.ParseUint(value, 0, 64)
	in := func(lo, hi uint64) bool { return err == nil && n >= lo && n <= hi && !strings.HasPrefix(value, "+") }
	least := func(field *int, lo, hi, ours uint64) string {
		if !in(lo, hi) {
			return "Reject"
		}
		*field = int(min(n, ours))
		return fmt.Sprint(*field)
	}
	var sink int
	switch key {
	case "MaxConnections":
		return least(&sink, 1, 65535, 1)
	case "ErrorRecoveryLevel":
		return least(&sink, 0, 2, 0)
	case "MaxOutstandingR2T":
		return least(&p.MaxOutstandingR2T, 1, 65535, 8)
	case "MaxBurstLength":
		return least(&p.MaxBurst, 512, 16777215, 16776192)
	case "FirstBurstLength":
		return least(&p.FirstBurst, 512, 16777215, uint64(min(262144, p.MaxBurst)))
	case "DefaultTime2Retain":
		return least(&p.Time2Retain, 0, 3600, 20)
	case "DefaultTime2Wait":
		if !in(0, 3600) {
			return "Reject"
		}
		p.Time2Wait = max(2, int(n))
		return fmt.Sprint(p.Time2Wait)
	case "MaxRecvDataSegmentLength":
		if !in(512, 16777215) {
			return "refused"
		}
		p.MaxSend = int(n)
		return ""
	case "InitialR2T", "ImmediateData", "DataPDUInOrder", "DataSequenceInOrder":
		return twinBoolean(key, value, p)
	case "HeaderDigest", "DataDigest":
		return twinDigest(key, value, p)
	}
	return "NotUnderstood"
}

func twinBoolean(key, value string, p *Params) string {
	if value != "Yes" && value != "No" {
		return "Reject"
	}
	switch key {
	case "InitialR2T":
		p.InitialR2T = value == "Yes" // OR with No
	case "ImmediateData":
		p.ImmediateData = value == "Yes" // AND with Yes
	default:
		return "Yes" // OR with Yes
	}
	return value
}

func twinDigest(key, value string, p *Params) string {
	answer := "Reject"
	for _, v := range strings.Split(value, ",") {
		if v == "CRC32C" || v == "None" {
			answer = v
			break
		}
	}
	if answer == "CRC32C" && key == "HeaderDigest" {
		p.HeaderDigest = true
	}
	if answer == "CRC32C" && key == "DataDigest" {
		p.DataDigest = true
	}
	return answer
}

var twinKeys = []string{
	"MaxBurstLength", "FirstBurstLength", "MaxConnections", "ErrorRecoveryLevel", "MaxOutstandingR2T", "DefaultTime2Retain", "DefaultTime2Wait",
	"MaxRecvDataSegmentLength", "InitialR2T", "ImmediateData", "DataPDUInOrder", "DataSequenceInOrder", "HeaderDigest", "DataDigest", "X-unknown",
}

func randomValue(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return []string{"Yes", "No", "yes", "", "None", "CRC32C", "CRC32C,None", "None,CRC32C", "MD5,CRC32C", "MD5"}[r.IntN(10)]
	case 1:
		return []string{"0", "1", "2", "3", "511", "512", "3600", "3601", "65535", "65536", "16777215", "16777216", "-1", "+5", "99999999999999999999"}[r.IntN(15)]
	case 2:
		return fmt.Sprintf("0x%x", r.Uint32()>>uint(r.IntN(32)))
	case 3:
		return []string{"Yes", "No"}[r.IntN(2)]
	}
	return fmt.Sprint(r.Uint32() >> uint(r.IntN(32)))
}

// The table and its slow twin agree on random requests.
func TestTableAgreesWithTwin(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 7))
		want := Params{MaxRecv: 262144, MaxSend: 8192, InitialR2T: true, ImmediateData: true, MaxBurst: 262144, FirstBurst: 65536,
			MaxOutstandingR2T: 1, Time2Wait: 2, Time2Retain: 20, TaskReporting: "RFC3720"}
		keys, answers := slices.Clone(names), map[string]string{}
		for _, k := range twinKeys {
			if v := randomValue(r); r.IntN(2) == 0 {
				keys = append(keys, k+"="+v)
				if a := twin(k, v, &want); a != "" {
					answers[k] = a
				}
			}
		}
		want.FirstBurst = min(want.FirstBurst, want.MaxBurst)
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		s := newStage()
		out := s.m.Step(request(true, 1, 3), text(keys...))
		if answers["MaxRecvDataSegmentLength"] == "refused" {
			if out.Status != iscsi.LoginInitiatorError {
				t.Fatalf("seed %d: %q: %v", seed, keys, out.Status)
			}
			continue
		}
		if out.Verdict != Done || s.m.Result().Params != want {
			t.Fatalf("seed %d: %q: %v %s\n got %+v\nwant %+v", seed, keys, out.Verdict, out.Why, s.m.result.Params, want)
		}
		pairs, err := iscsi.ParseText(out.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pairs {
			ours := p.Key == "TargetPortalGroupTag" || p.Key == "MaxRecvDataSegmentLength" && p.Value == "262144"
			if !ours && answers[p.Key] != p.Value {
				t.Fatalf("seed %d: %q: %s=%s, want %q", seed, keys, p.Key, p.Value, answers[p.Key])
			}
			delete(answers, p.Key)
		}
		if len(answers) > 0 {
			t.Fatalf("seed %d: %q: no answer to %v", seed, keys, answers)
		}
	}
}

var chapResponses = map[Algorithm]string{
	MD5:     "8bacd3918d192676455f1642f5411428",
	SHA1:    "f2d631f748f3d9d78d99494b7072347a95d7c004",
	SHA256:  "8ece1031f215959097245148aaea63829012f2a49d063f464a03ec5acdf77c58",
	SHA3256: "7c8f5e9b2066932bb35219ee73c9b9dd048e90f1643bca651e765adcc7d1046d",
}
