package login

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"petal/target/iscsi"
)

// FuzzLogin plays a sequence of requests, cut from the input, against a target
// with mutual CHAP (or without, for odd first bytes). Whatever comes:
// no panic, one response for each request, no login without the secret, and no
// parameter out of its range.
//
// The input is repeated: flags (T, C, CSG, NSG as in byte 1 of a login
// request), the length of the text in two bytes, the text.
func FuzzLogin(f *testing.F) {
	for _, seed := range loginSeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		s := newStage()
		chap := b[0]&1 == 0
		if chap {
			s.admission.CHAP = &CHAP{User: "joe", Secret: "secret-of-joe", MutualUser: "petal", MutualSecret: "secret-of-petal"}
		}
		b = b[1:]
		for len(b) >= 3 {
			n := min(int(b[1])<<8|int(b[2]), len(b)-3)
			h := request(false, 0, 0)
			h[1] = b[0]
			out := s.m.Step(h, b[3:3+n])
			b = b[3+n:]
			checkOutput(t, s, h, out)
			if out.Verdict == Done {
				if chap && s.m.Result().User == "" {
					t.Fatal("logged in without the secret")
				}
				checkText(t, s, b)
			}
			if out.Verdict != More {
				return
			}
		}
	})
}

func checkOutput(t *testing.T, s *stage, h *iscsi.BHS, out Output) {
	r := out.Header.LoginResponse()
	if r.Opcode() != iscsi.OpLoginResponse || r.ITT() != h.ITT() || len(out.Data) > iscsi.DefaultRecvDataSegment {
		t.Fatalf("response % x with %d bytes", out.Header, len(out.Data))
	}
	if (out.Verdict == Failed) != (r.Status() != iscsi.LoginSuccess) || out.Verdict == Done && !(r.Transit() && r.NSG() == iscsi.StageFullFeature && r.TSIH() != 0) {
		t.Fatalf("verdict %v with response % x", out.Verdict, out.Header)
	}
	if _, err := iscsi.ParseText(out.Data); err != nil {
		t.Fatalf("our own text %q: %v", out.Data, err)
	}
	p := s.m.keys.params()
	if s.m.state == leading || out.Verdict == Failed {
		return
	}
	if p.MaxSend < 512 || p.MaxSend > iscsi.MaxDataSegmentField || p.MaxBurst < 512 || p.MaxBurst > iscsi.MaxBurst || p.FirstBurst < 512 ||
		p.FirstBurst > p.MaxBurst || p.FirstBurst > iscsi.FirstBurst || p.MaxOutstandingR2T < 1 || p.MaxOutstandingR2T > iscsi.MaxOutstandingR2T ||
		p.Time2Wait < 0 || p.Time2Wait > 3600 || p.Time2Retain < 0 || p.Time2Retain > 3600 {
		t.Fatalf("%+v", p)
	}
}

// checkText plays what is left of the input as text requests.
func checkText(t *testing.T, s *stage, b []byte) {
	text := NewText(s, s.m.Result())
	for len(b) >= 3 {
		n := min(int(b[1])<<8|int(b[2]), len(b)-3)
		var h iscsi.BHS
		h.Reset(iscsi.OpTextRequest)
		h[1] = b[0]
		r := h.TextRequest()
		r.SetTTT(iscsi.ReservedTag)
		if b[0]&1 != 0 {
			r.SetTTT(text.tag)
		}
		resp, data, err := text.Step(r, b[3:3+n])
		b = b[3+n:]
		if err != nil {
			continue
		}
		if len(data) > text.MaxSend() || resp.TextResponse().Final() != (resp.TextResponse().TTT() == iscsi.ReservedTag) || resp.TextResponse().Final() && resp.TextResponse().Continue() {
			t.Fatalf("response % x with %d bytes", resp, len(data))
		}
	}
}

// loginSeeds are the logins of the transcripts.
func loginSeeds(f *testing.F) [][]byte {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no transcripts", err)
	}
	var seeds [][]byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, first := range []byte{0, 1} {
			seeds = append(seeds, seedOf(b, first))
		}
	}
	return seeds
}

// seedOf makes one input of all the login and text requests of a transcript.
func seedOf(transcript []byte, first byte) []byte {
	seed := []byte{first}
	for block := range bytes.SplitSeq(transcript, []byte("\n\n")) {
		command, _, _ := bytes.Cut(block, []byte("\n----"))
		lines := bytes.Split(command, []byte("\n"))
		for len(lines) > 0 && bytes.HasPrefix(lines[0], []byte("#")) {
			lines = lines[1:]
		}
		if len(lines) == 0 || !bytes.HasPrefix(lines[0], []byte("login")) && !bytes.HasPrefix(lines[0], []byte("text")) {
			continue
		}
		data := append(bytes.Join(lines[1:], []byte{0}), 0)
		flags := byte(0)
		for word := range bytes.FieldsSeq(lines[0]) {
			switch string(word) {
			case "T", "F":
				flags |= 0x80
			case "C":
				flags |= 0x40
			case "csg=1":
				flags |= 0x04
			case "nsg=1":
				flags |= 0x01
			case "nsg=3":
				flags |= 0x03
			}
		}
		seed = append(append(seed, flags, byte(len(data)>>8), byte(len(data))), data...)
	}
	return seed
}
