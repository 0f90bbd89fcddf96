package login

import (
	"fmt"

	"petal/target/iscsi"
)

// Text is text negotiation in full feature phase (section 6.4; section 11.10):
// SendTargets, and a new MaxRecvDataSegmentLength of the initiator. One
// exchange at a time:
//
//	idle --request, C=1--> collecting --request, C=0--+
//	  |                                               |
//	  +-----------------request, C=0------------------+--> answer fits: idle
//	                                                  |
//	                                                  +--> answering: one PDU per
//	                                                       empty request, then idle
//
// While collecting or answering, a Target Transfer Tag marks the exchange; a
// request without it begins a new one (section 11.10.4). Not safe for
// concurrent use.
type Text struct {
	authority Authority
	result    *Result
	keys      negotiation

	tag    uint32 // of the exchange under way, or the last one
	open   bool   // an exchange is under way
	itt    uint32 // its Initiator Task Tag
	text   iscsi.TextBuffer
	answer []byte // what is still to be sent
	last   bool   // the initiator has nothing more to ask: F
}

// NewText returns the text negotiation of a session that has logged in.
func NewText(a Authority, r *Result) *Text {
	t := &Text{authority: a, result: r}
	t.keys.init(r.Discovery)
	t.keys.p = r.Params
	return t
}

// MaxSend is the longest data segment that the initiator takes now. It applies
// from the response on that Step returned last.
func (t *Text) MaxSend() int { return t.keys.p.MaxSend }

// Step takes a text request with its data, which is not kept, and returns the
// response, without its StatSN and command window, and its data, valid until
// the next Step. An error is a *iscsi.RejectError, and ends the exchange.
func (t *Text) Step(h iscsi.TextRequest, data []byte) (iscsi.BHS, []byte, error) {
	resp, out, err := t.step(h, data)
	if err != nil {
		t.end()
	}
	return resp, out, err
}

func (t *Text) step(h iscsi.TextRequest, data []byte) (iscsi.BHS, []byte, error) {
	if err := t.belongs(h); err != nil {
		return iscsi.BHS{}, nil, err
	}
	if h.Continue() && h.Final() {
		return iscsi.BHS{}, nil, protocolError("text request with F and C (section 11.10.2)")
	}
	if t.answer != nil {
		if len(data) > 0 || h.Continue() {
			return iscsi.BHS{}, nil, protocolError("text in a request for the rest of an answer")
		}
		return t.send(h)
	}
	if err := t.text.Add(data); err != nil {
		return iscsi.BHS{}, nil, err
	}
	if h.Continue() {
		return t.send(h)
	}
	pairs, err := iscsi.ParseText(t.text.Take())
	if err != nil {
		return iscsi.BHS{}, nil, err
	}
	t.last = h.Final()
	if t.answer, err = t.respond(pairs); err != nil {
		return iscsi.BHS{}, nil, err
	}
	return t.send(h)
}

// belongs finds out whether the request goes on with the exchange under way, or
// begins one.
func (t *Text) belongs(h iscsi.TextRequest) error {
	if h.TTT() == iscsi.ReservedTag {
		t.end()
		t.open, t.itt = true, h.ITT()
		t.tag = (t.tag + 1) & 0x7fffffff // never ReservedTag
		return nil
	}
	if !t.open || h.TTT() != t.tag || h.ITT() != t.itt {
		return protocolError(fmt.Sprintf("text request with Target Transfer Tag 0x%08x, which is not under way", h.TTT()))
	}
	return nil
}

func (t *Text) end() {
	t.open, t.answer, t.last = false, nil, false
	t.text.Take()
}

// send makes the response with as much of the answer as it may have.
func (t *Text) send(h iscsi.TextRequest) (iscsi.BHS, []byte, error) {
	n := min(len(t.answer), t.keys.p.MaxSend, iscsi.MaxSendDataSegment)
	out := t.answer[:n]
	t.answer = t.answer[n:]
	more := len(t.answer) > 0
	final := !more && !h.Continue() && (t.last || h.Final())

	var resp iscsi.BHS
	resp.Reset(iscsi.OpTextResponse)
	resp.SetITT(h.ITT())
	resp.SetLUN(h.LUN())
	r := resp.TextResponse()
	r.SetContinue(more)
	r.SetFinal(final)
	r.SetTTT(t.tag)
	if final {
		r.SetTTT(iscsi.ReservedTag)
		t.end()
	} else if !more {
		t.answer = nil
	}
	return resp, out, nil
}

// respond computes the answer to a whole text.
func (t *Text) respond(pairs []iscsi.Pair) ([]byte, error) {
	var rest []iscsi.Pair
	var b []byte
	for _, p := range pairs {
		if p.Key != "SendTargets" {
			rest = append(rest, p)
			continue
		}
		var err error
		if b, err = t.sendTargets(b, p.Value); err != nil {
			return nil, err
		}
	}
	answers, no := t.keys.answer(rest, inFullFeature)
	if no != nil {
		return nil, protocolError(no.why)
	}
	return iscsi.AppendText(b, answers), nil
}

// sendTargets answers SendTargets (appendix C): "All" in a discovery session
// only, nothing at all in a normal one only, where it means the session's own
// target; a name in both.
func (t *Text) sendTargets(b []byte, which string) ([]byte, error) {
	switch {
	case which == "All" && !t.result.Discovery, which == "" && t.result.Discovery:
		return iscsi.AppendPair(b, "SendTargets", rejected), nil
	case which == "":
		which = t.result.Target
	case which != "All":
		name, err := iscsi.NormalizeName(which)
		if err != nil || !t.result.Discovery && name != t.result.Target {
			return b, nil // nothing that there is to be seen
		}
		which = name
	}
	for _, target := range t.authority.Targets(t.result.Initiator) {
		if which != "All" && which != target.Name {
			continue
		}
		b = appendTarget(b, target)
		if len(b) > iscsi.MaxSendTargets {
			return nil, &iscsi.RejectError{Reason: iscsi.RejectOutOfResources, Why: "more targets than MaxSendTargets"}
		}
	}
	return b, nil
}

// appendTarget appends a target and its addresses: domainname:port,group
// (section 13.8).
func appendTarget(b []byte, t Target) []byte {
	b = iscsi.AppendPair(b, "TargetName", t.Name)
	for _, p := range t.Portals[:min(len(t.Portals), iscsi.MaxPortals)] {
		b = iscsi.AppendPair(b, "TargetAddress", fmt.Sprintf("%s,%d", p.Address, p.Group))
	}
	return b
}

func protocolError(why string) error {
	return &iscsi.RejectError{Reason: iscsi.RejectProtocolError, Why: why}
}
