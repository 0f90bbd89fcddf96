package login

import (
	"fmt"
	"io"

	"petal/target/iscsi"
	"petal/target/serial"
)

// Config is what a Machine needs to know and to have decided for it.
type Config struct {
	Authority Authority
	Sessions  Sessions
	Random    io.Reader     // of challenges and identifiers: cryptographic, except in simulation
	StatSN    serial.StatSN // of the first response
	Window    uint32        // commands that a new session may have in flight, at least 1
}

// Result is what a successful login has agreed upon.
type Result struct {
	Discovery      bool
	Initiator      string // normal form
	InitiatorAlias string
	Target         string // normal form; empty in a discovery session
	PortalGroup    uint16
	ISID           iscsi.ISID
	TSIH           uint16
	CID            uint16
	User           string // as whom the initiator authenticated itself; empty without CHAP
	// Reinstates says that a session of the same nexus existed when the login
	// began (section 6.3.5): it ends before the last response is sent. One may
	// also have come since, from a login that ran beside this one.
	Reinstates bool
	CmdSN      serial.CmdSN  // of the first command: ExpCmdSN
	StatSN     serial.StatSN // of the next response
	Params     Params
}

// Nexus is the session's identity.
func (r *Result) Nexus() Nexus {
	return Nexus{Initiator: r.Initiator, ISID: r.ISID, Target: r.Target}
}

// Verdict says what to do with an Output.
type Verdict uint8

const (
	// More: send the response, then read the next request.
	More Verdict = iota
	// Done: the response ends the login phase. See Machine.Result. End a
	// session that is reinstated, then send, then go on in full feature phase
	// with the digests agreed upon.
	Done
	// Failed: send the response, then close the connection.
	Failed
)

var verdictNames = [...]string{More: "more", Done: "done", Failed: "failed"}

func (v Verdict) String() string { return verdictNames[v] }

// Output is what a Step brings: one response for each request.
type Output struct {
	Header  iscsi.BHS
	Data    []byte
	Verdict Verdict
	Status  iscsi.LoginStatus
	Why     string // why it failed, for the log: never sent
}

// state is where a Machine is: see the package comment.
type state uint8

const (
	leading state = iota // no request yet
	security
	operational
	done
	failed
)

var stateNames = [...]string{"leading", "security", "operational", "done", "failed"}

func (s state) String() string { return stateNames[s] }

// Machine is the login phase of one connection. It is not safe for concurrent
// use.
type Machine struct {
	cfg   Config
	state state

	first  iscsi.BHS // the leading request: identity and version must not change
	statSN serial.StatSN
	rounds int // requests so far
	bytes  int // of text so far
	text   iscsi.TextBuffer

	admission Admission
	auth      authenticator
	keys      negotiation
	greeted   bool // the first answer, with the portal group tag, has been made
	result    Result
}

// New returns a Machine for a new connection.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, statSN: cfg.StatSN}
}

// Result is what has been agreed upon; nil unless a Step returned Done.
func (m *Machine) Result() *Result {
	if m.state != done {
		return nil
	}
	return &m.result
}

// Peer is what the initiator called itself, for logs; empty if it has not yet.
func (m *Machine) Peer() string { return m.result.Initiator }

// refusal ends a login.
type refusal struct {
	status iscsi.LoginStatus
	why    string
	text   []iscsi.Pair // redirection
}

func refuse(status iscsi.LoginStatus, format string, args ...any) *refusal {
	return &refusal{status: status, why: fmt.Sprintf(format, args...)}
}

// Step takes a request with its data segment, which is not kept, and returns
// the response. It must not be called again after Done or Failed.
func (m *Machine) Step(h *iscsi.BHS, data []byte) Output {
	if m.state == done || m.state == failed {
		panic("login: Step in state " + m.state.String())
	}
	l := h.LoginRequest()
	if no := m.admissible(l, data); no != nil {
		return m.fail(l, no)
	}
	if l.Continue() {
		return m.respond(l, nil, false)
	}
	pairs, err := iscsi.ParseText(m.text.Take())
	if err != nil {
		return m.fail(l, refuse(iscsi.LoginInitiatorError, "%v", err))
	}
	if m.state == leading {
		if no := m.lead(pairs); no != nil {
			return m.fail(l, no)
		}
	}
	answers, no := m.negotiate(l, pairs)
	if no != nil {
		return m.fail(l, no)
	}
	return m.respond(l, answers, m.mayLeave(l))
}

// admissible checks what holds for every request of a login phase, and takes
// its text.
func (m *Machine) admissible(l iscsi.LoginRequest, data []byte) *refusal {
	m.rounds++
	m.bytes += len(data)
	if m.rounds == 1 {
		m.first = *l.BHS
	}
	switch {
	case l.Opcode() != iscsi.OpLoginRequest:
		return refuse(iscsi.LoginInvalidRequest, "%v in the login phase", l.Opcode())
	case l.VersionMin() > 0:
		return refuse(iscsi.LoginUnsupportedVersion, "versions %d to %d; 0 is what we have", l.VersionMin(), l.VersionMax())
	case m.rounds > iscsi.LoginRequests || m.bytes > iscsi.LoginBytes:
		return refuse(iscsi.LoginInitiatorError, "login of more than %d requests or %d bytes", iscsi.LoginRequests, iscsi.LoginBytes)
	}
	if f := m.first.LoginRequest(); l.ISID() != f.ISID() || l.TSIH() != f.TSIH() || l.CID() != f.CID() || l.VersionMax() != f.VersionMax() {
		return refuse(iscsi.LoginInitiatorError, "ISID, TSIH, CID or version changed during login")
	}
	if no := m.stageFits(l); no != nil {
		return no
	}
	if err := m.text.Add(data); err != nil {
		return refuse(iscsi.LoginInitiatorError, "%v", err)
	}
	return nil
}

// stageFits checks CSG, NSG, T and C (sections 11.12.2, 11.12.3 and 6.3).
func (m *Machine) stageFits(l iscsi.LoginRequest) *refusal {
	csg, nsg := l.CSG(), l.NSG()
	legal := csg == iscsi.StageSecurity || csg == iscsi.StageOperational
	switch m.state {
	case leading:
		// The leading request's stage may not change while it is continued.
		legal = legal && csg == m.first.LoginRequest().CSG()
	case security:
		legal = csg == iscsi.StageSecurity
	case operational:
		legal = csg == iscsi.StageOperational
	}
	switch {
	case !legal:
		return refuse(iscsi.LoginInitiatorError, "request for %v in state %v", csg, m.state)
	case l.Transit() && l.Continue():
		return refuse(iscsi.LoginInitiatorError, "T and C both set")
	case l.Transit() && (nsg <= csg || nsg == 2):
		return refuse(iscsi.LoginInitiatorError, "transition from %v to %v", csg, nsg)
	}
	return nil
}

// negotiate computes the answers to the keys of a request.
func (m *Machine) negotiate(l iscsi.LoginRequest, pairs []iscsi.Pair) ([]iscsi.Pair, *refusal) {
	var answers []iscsi.Pair
	if !m.greeted {
		m.greeted = true
		answers = m.greeting()
	}
	now := inOperational
	if m.state == security {
		now = inSecurity
		mine, rest, no := m.auth.step(pairs, l.Transit(), m.cfg.Random)
		if no != nil {
			return nil, no
		}
		answers, pairs = append(answers, mine...), rest
	}
	theirs, no := m.keys.answer(pairs, now)
	if no != nil {
		return nil, no
	}
	answers = append(answers, theirs...)
	if m.state == operational && !m.keys.declared && !m.result.Discovery {
		m.keys.declared = true
		answers = append(answers, iscsi.Pair{Key: "MaxRecvDataSegmentLength", Value: fmt.Sprint(iscsi.RecvDataSegment)})
	}
	return answers, nil
}

// greeting is what the target says of itself. Section 13.9: "the target MUST
// return the TargetPortalGroupTag key in the first Login Response PDU" of a
// normal session.
func (m *Machine) greeting() []iscsi.Pair {
	if m.result.Discovery {
		return nil
	}
	g := []iscsi.Pair{{Key: "TargetPortalGroupTag", Value: fmt.Sprint(m.admission.PortalGroup)}}
	if a := m.admission.Alias; a != "" && len(a) <= iscsi.MaxAlias {
		g = append(g, iscsi.Pair{Key: "TargetAlias", Value: a})
	}
	return g
}

// mayLeave reports whether the stage ends with this request.
func (m *Machine) mayLeave(l iscsi.LoginRequest) bool {
	return l.Transit() && (m.state != security || m.auth.passed())
}

// respond makes the response, and the transition if there is one.
func (m *Machine) respond(l iscsi.LoginRequest, answers []iscsi.Pair, transit bool) Output {
	out := Output{Data: iscsi.AppendText(nil, answers)}
	tsih := l.TSIH()
	if transit && l.NSG() == iscsi.StageFullFeature {
		var ok bool
		if tsih, ok = m.cfg.Sessions.NewTSIH(); !ok {
			return m.fail(l, refuse(iscsi.LoginOutOfResources, "no TSIH is free"))
		}
		m.finish(tsih)
		out.Verdict = Done
	} else if transit {
		m.become(operational)
	}
	r := m.response(&out.Header, l)
	r.SetTransit(transit)
	r.SetTSIH(tsih)
	if transit {
		r.SetNSG(l.NSG())
	}
	m.statSN++
	m.result.StatSN = m.statSN
	return out
}

func (m *Machine) finish(tsih uint16) {
	m.result.TSIH = tsih
	m.result.User = m.auth.user
	m.result.CmdSN = m.first.LoginRequest().CmdSN()
	m.result.Params = m.keys.params()
	m.become(done)
}

func (m *Machine) fail(l iscsi.LoginRequest, no *refusal) Output {
	m.become(failed)
	out := Output{Data: iscsi.AppendText(nil, no.text), Verdict: Failed, Status: no.status, Why: no.why}
	m.response(&out.Header, l).SetStatus(no.status)
	return out
}

// response fills in what all responses have.
func (m *Machine) response(h *iscsi.BHS, l iscsi.LoginRequest) iscsi.LoginResponse {
	h.Reset(iscsi.OpLoginResponse)
	r := h.LoginResponse()
	r.SetITT(l.ITT())
	r.SetStatSN(m.statSN)
	if l.Opcode() == iscsi.OpLoginRequest {
		r.SetCSG(l.CSG())
		r.SetISID(l.ISID())
		r.SetTSIH(l.TSIH())
	}
	cmdSN := m.first.LoginRequest().CmdSN()
	r.SetWindow(serial.CmdWindow{First: cmdSN, Last: cmdSN + serial.CmdSN(m.cfg.Window) - 1})
	return r
}

// become is every transition that there is.
func (m *Machine) become(next state) {
	legal := false
	switch m.state {
	case leading:
		legal = next == security || next == operational || next == failed
	case security:
		legal = next == operational || next == done || next == failed
	case operational:
		legal = next == done || next == failed
	}
	if !legal {
		panic(fmt.Sprintf("login: from %v to %v", m.state, next))
	}
	m.state = next
}
