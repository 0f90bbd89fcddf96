package initiator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"petal/target/iscsi"
	"petal/target/serial"
)

// DefaultName is the initiator name of a login that gives none.
const DefaultName = "iqn.2026-11.petal:initiator"

// Options says how to log in and how the session is to behave. The zero value
// is what open-iscsi does by default, without CHAP and digests.
type Options struct {
	Name string     // our iSCSI name; DefaultName if empty
	ISID iscsi.ISID // random if zero; a session with the same one is reinstated

	User, Secret             string // CHAP is offered if Secret is set
	MutualUser, MutualSecret string // the target is challenged if MutualSecret is set; any name does if MutualUser is empty
	CHAPAlgorithms           []int  // in order of preference; all four, the strongest first, if empty

	HeaderDigest, DataDigest bool // offer CRC32C only, not None

	// Keys are offered besides or in place of the usual ones; an empty value
	// leaves the key out, so that the target takes the default of RFC 7143.
	Keys map[string]string

	// Reconnect is for how long after the loss of its connection a session
	// tries to make a new one, with the same ISID, and sends again, in their
	// old order, the commands that had not ended. 0: a lost connection is the
	// end.
	Reconnect time.Duration
	// Portals are more portals of the same target, host:port, as a multipath
	// initiator knows them. After PathDelay without a connection they are tried
	// too, in their order: not sooner, since until then a command that was sent
	// over the lost path may still take effect. 0: DefaultPathDelay.
	Portals   []string
	PathDelay time.Duration
	// OnEvent is told of losses and reconnections, from the session's
	// goroutine; it must not wait for tasks.
	OnEvent func(Event)
	// PingEvery is after how much silence of the target a NOP-Out is sent;
	// after as much again the connection is taken as lost. 0: never.
	PingEvery time.Duration
	// AnyStatSN takes responses whatever their StatSN. gotgt v0.2.2 gives the
	// same one to several.
	AnyStatSN bool
}

// Event is a change of a session's connection.
type Event struct {
	Lost  error         // why the connection was lost; nil: it is there again
	After time.Duration // how long there was none
}

// DefaultPathDelay is what petal asks of initiators (replacement_timeout).
const DefaultPathDelay = 5 * time.Second

// loginTimeout bounds one attempt to connect and log in, pathTimeout one where
// there are other portals to try.
const (
	loginTimeout = 15 * time.Second
	pathTimeout  = 3 * time.Second
)

// Params are the results of a login.
type Params struct {
	ISID                         iscsi.ISID
	TSIH                         uint16
	HeaderDigest, DataDigest     bool
	InitialR2T, ImmediateData    bool
	FirstBurst, MaxBurst         int // bytes
	MaxSend, MaxRecv             int // the target's and our MaxRecvDataSegmentLength, bytes
	MaxOutstandingR2T            int
	DataPDUInOrder, DataSeqOrder bool
	Keys                         map[string]string // all that the target answered or declared
	CmdSN                        serial.CmdSN      // of the first command
	ExpStatSN                    serial.StatSN     // of the first response
	Window                       serial.CmdWindow  // of the last login response
}

// LoginError is a login response with a status other than success.
type LoginError struct {
	Status  iscsi.LoginStatus
	Address string // TargetAddress of a redirection
}

func (e *LoginError) Error() string {
	s := fmt.Sprintf("initiator: login refused: %v (%04x)", e.Status, uint16(e.Status))
	if e.Address != "" {
		s += " to " + e.Address
	}
	return s
}

// loginRun is one login on its way.
type loginRun struct {
	conn    *Conn
	options *Options
	params  Params
	itt     uint32
}

// keys that a normal session offers, after open-iscsi's defaults.
func operationalKeys(o *Options, discovery bool) map[string]string {
	digest := func(on bool) string {
		if on {
			return "CRC32C"
		}
		return "None"
	}
	keys := map[string]string{
		"HeaderDigest": digest(o.HeaderDigest), "DataDigest": digest(o.DataDigest),
		"DefaultTime2Wait": "2", "DefaultTime2Retain": "0", "ErrorRecoveryLevel": "0",
		"MaxRecvDataSegmentLength": "262144",
	}
	if !discovery {
		maps.Copy(keys, map[string]string{
			"InitialR2T": "No", "ImmediateData": "Yes", "FirstBurstLength": "262144", "MaxBurstLength": "16776192",
			"MaxOutstandingR2T": "1", "MaxConnections": "1", "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes",
		})
	}
	for k, v := range o.Keys {
		if v == "" {
			delete(keys, k)
		} else {
			keys[k] = v
		}
	}
	return keys
}

// Login logs in to target, or for discovery if target is empty, and sets the
// connection's digests. The error is a *LoginError if the target refused.
func (c *Conn) Login(ctx context.Context, target string, options Options) (Params, error) {
	o := &options
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.ISID == (iscsi.ISID{}) {
		o.ISID = randomISID()
	}
	if len(o.CHAPAlgorithms) == 0 {
		o.CHAPAlgorithms = []int{CHAPSHA3256, CHAPSHA256, CHAPSHA1, CHAPMD5}
	}
	stop := context.AfterFunc(ctx, func() { c.nc.SetDeadline(time.Unix(1, 0)) })
	l := &loginRun{conn: c, options: o, itt: 1}
	l.params = Params{ISID: o.ISID, CmdSN: 1, Keys: map[string]string{}}
	err := l.run(target)
	// A login that ctx has overtaken leaves a connection whose time is over.
	if !stop() || err != nil {
		return Params{}, errors.Join(err, ctx.Err())
	}
	err = l.params.take(operationalKeys(o, target == ""))
	c.HeaderDigest, c.DataDigest = l.params.HeaderDigest, l.params.DataDigest
	return l.params, err
}

// randomISID makes a random-format ISID (RFC 7143, section 11.12.5).
func randomISID() iscsi.ISID {
	var id iscsi.ISID
	rand.Read(id[1:])
	id[0] = 0x80
	return id
}

func (l *loginRun) run(target string) error {
	first := []string{"InitiatorName", l.options.Name, "SessionType", "Normal", "TargetName", target, "AuthMethod", "None"}
	if target == "" {
		first = []string{"InitiatorName", l.options.Name, "SessionType", "Discovery", "AuthMethod", "None"}
	}
	if l.options.Secret != "" {
		first[len(first)-1] = "CHAP"
		if _, err := l.exchange(iscsi.StageSecurity, false, first); err != nil {
			return err
		}
		if err := l.chap(); err != nil {
			return err
		}
	} else if _, err := l.exchange(iscsi.StageSecurity, true, first); err != nil {
		return err
	}
	var pairs []string
	keys := operationalKeys(l.options, target == "")
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		pairs = append(pairs, k, keys[k])
	}
	_, err := l.exchange(iscsi.StageOperational, true, pairs)
	return err
}

// maxLoginRounds bounds the responses that a target may take for one stage.
const maxLoginRounds = 32

// exchange sends pairs in a stage and gathers the answers. With transit it
// asks to leave the stage, and goes on with empty requests until the target
// agrees.
func (l *loginRun) exchange(stage iscsi.Stage, transit bool, pairs []string) (map[string]string, error) {
	next := iscsi.StageOperational
	if stage == iscsi.StageOperational {
		next = iscsi.StageFullFeature
	}
	var text []byte
	for i := 0; i < len(pairs); i += 2 {
		text = iscsi.AppendPair(text, pairs[i], pairs[i+1])
	}
	answers := map[string]string{}
	for range maxLoginRounds {
		response, err := l.round(stage, next, transit, text)
		if err != nil {
			return nil, err
		}
		in, err := l.gather(response, stage)
		if err != nil {
			return nil, err
		}
		maps.Copy(answers, in)
		maps.Copy(l.params.Keys, in)
		if !transit || response.LoginResponse().Transit() {
			return answers, nil
		}
		text = nil
	}
	return nil, errors.New("initiator: the target does not come to an end of the login stage")
}

// round sends one login request and returns the response to it.
func (l *loginRun) round(stage, next iscsi.Stage, transit bool, text []byte) (*PDU, error) {
	p := &PDU{Data: text}
	p.Reset(iscsi.OpLoginRequest)
	r := p.LoginRequest()
	r.SetImmediate(true)
	r.SetTransit(transit)
	r.SetCSG(stage)
	if transit {
		r.SetNSG(next)
	}
	r.SetISID(l.params.ISID)
	r.SetTSIH(0)
	r.SetITT(l.itt)
	r.SetCmdSN(l.params.CmdSN)
	r.SetExpStatSN(l.params.ExpStatSN)
	if err := l.conn.Send(p); err != nil {
		return nil, err
	}
	in, err := l.conn.Recv()
	if err != nil {
		return nil, fmt.Errorf("initiator: login: %w", unexpected(err))
	}
	if in.Opcode() != iscsi.OpLoginResponse {
		return nil, fmt.Errorf("initiator: %v in place of a login response", in.Opcode())
	}
	response := in.LoginResponse()
	l.params.ExpStatSN = response.StatSN() + 1
	l.params.Window = response.Window()
	l.params.TSIH = response.TSIH()
	if status := response.Status(); status != iscsi.LoginSuccess {
		e := &LoginError{Status: status}
		if pairs, err := iscsi.ParseText(in.Data); err == nil {
			e.Address, _ = iscsi.Lookup(pairs, "TargetAddress")
		}
		return nil, e
	}
	return in, nil
}

// gather joins the text of in with what follows it under the C bit; in becomes
// the last response.
func (l *loginRun) gather(in *PDU, stage iscsi.Stage) (map[string]string, error) {
	var whole iscsi.TextBuffer
	for {
		if err := whole.Add(in.Data); err != nil {
			return nil, err
		}
		if !in.LoginResponse().Continue() {
			break
		}
		more, err := l.round(stage, stage, false, nil)
		if err != nil {
			return nil, err
		}
		*in = *more
	}
	pairs, err := iscsi.ParseText(whole.Take())
	if err != nil {
		return nil, err
	}
	answers := make(map[string]string, len(pairs))
	for _, p := range pairs {
		answers[p.Key] = p.Value
	}
	return answers, nil
}

// take makes the negotiated values out of what was offered and answered.
func (p *Params) take(offered map[string]string) error {
	var bad error
	// A key that was not offered and not answered has its default. One that
	// was offered must be answered; if it was not, the offer is not in force.
	value := func(key, def string) string {
		if v, ok := p.Keys[key]; ok && v != "NotUnderstood" && v != "Reject" && v != "Irrelevant" {
			return v
		}
		return def
	}
	number := func(key string, def int) int {
		n, err := strconv.ParseUint(value(key, strconv.Itoa(def)), 0, 24)
		if err != nil {
			bad = fmt.Errorf("initiator: the target answered %s=%q", key, p.Keys[key])
		}
		return int(n)
	}
	is := func(key, def, what string) bool { return strings.EqualFold(value(key, def), what) }
	p.HeaderDigest = is("HeaderDigest", "None", "CRC32C")
	p.DataDigest = is("DataDigest", "None", "CRC32C")
	p.InitialR2T = is("InitialR2T", "Yes", "Yes")
	p.ImmediateData = is("ImmediateData", "Yes", "Yes")
	p.DataPDUInOrder = is("DataPDUInOrder", "Yes", "Yes")
	p.DataSeqOrder = is("DataSequenceInOrder", "Yes", "Yes")
	p.MaxSend = number("MaxRecvDataSegmentLength", 8192)
	p.FirstBurst = number("FirstBurstLength", 65536)
	p.MaxBurst = number("MaxBurstLength", 262144)
	p.MaxOutstandingR2T = number("MaxOutstandingR2T", 1)
	p.MaxRecv = 8192
	if v, err := strconv.Atoi(offered["MaxRecvDataSegmentLength"]); err == nil {
		p.MaxRecv = v
	}
	if p.MaxSend < 512 || p.FirstBurst < 512 || p.MaxBurst < 512 {
		bad = fmt.Errorf("initiator: the target answered a length below 512: %v", p.Keys)
	}
	return bad
}
